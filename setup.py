from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = (ROOT / 'safe_align' / '__init__.py').read_text(encoding='utf-8').split("__version__ = '")[1].split("'")[0]

setup(
    name='safe_align',
    version=VERSION,
    description='Staged, file-based alignment of language models, with safety that others can check',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['safe_align', 'safe_align.*']),
    package_data={'safe_align.evaluate': ['problems/*'], 'safe_align.evaluate.reporting': ['page.css', 'page.js']},
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.10',
        'deepspeed>=0.18',
        'transformers>=5.10',
        'datasets>=3.0',
        'safetensors>=0.5',
        'numpy>=1.26',
        'scipy>=1.12',
        'matplotlib>=3.8',
        'typing-extensions>=4.6',
        'wandb>=0.18',
        'tqdm>=4.66',
    ],
    extras_require={
        'bigbench': ['sacrebleu>=2.4', 'rouge-score>=0.1.2'],
        'demo': ['gguf>=0.10', 'accelerate>=1.1'],
        'dev': [
            'axe-playwright-python>=0.1',
            'playwright>=1.50',
            'pytest>=8',
            'pytest-xdist>=3.5',
            'hypothesis>=6.100',
            'ruff>=0.9',
            'mypy>=1.13',
            'fastapi>=0.115',
            'uvicorn>=0.32',
            'types-PyYAML',
            'types-tqdm',
        ],
        'lm-eval': ['lm-eval>=0.4.9', 'accelerate>=1.1'],
        'lora': ['peft>=0.17'],
        'qlora': ['peft>=0.17', 'bitsandbytes>=0.48'],
        'server': ['openai>=1.60'],
        'tensorboard': ['tensorboard>=2.16'],
        'yaml': ['pyyaml>=6'],
    },
)
