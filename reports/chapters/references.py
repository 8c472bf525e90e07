"""The literature that the methods cite."""

from __future__ import annotations

import re

REFERENCES = {
    "adamw": "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019.",
    "asha": "Li L, Jamieson K, et al. A system for massively parallel hyperparameter tuning. MLSys 2020.",
    "batchnorm": "Ioffe S, Szegedy C. Batch normalization: accelerating deep network training by reducing internal "
    "covariate shift. ICML 2015.",
    "bca": "Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987;82:171-185.",
    "clusters": "Davison AC, Hinkley DV. Bootstrap methods and their application. Cambridge University Press, 1997.",
    "cosine": "Loshchilov I, Hutter F. SGDR: stochastic gradient descent with warm restarts. ICLR 2017.",
    "focal": "Lin T-Y, Goyal P, Girshick R, He K, Dollár P. Focal loss for dense object detection. ICCV 2017.",
    "holm": "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    "imagenet": "Deng J, Dong W, et al. ImageNet: a large-scale hierarchical image database. CVPR 2009.",
    "mcnemar": "McNemar Q. Note on the sampling error of the difference between correlated proportions or percentages. "
    "Psychometrika 1947;12:153-157.",
    "median": "Golovin D, Solnik B, et al. Google Vizier: a service for black-box optimization. KDD 2017.",
    "one_se": "Breiman L, Friedman JH, Olshen RA, Stone CJ. Classification and regression trees. Wadsworth, 1984.",
    "optuna": "Akiba T, Sano S, et al. Optuna: a next-generation hyperparameter optimization framework. KDD 2019.",
    "random": "Bergstra J, Bengio Y. Random search for hyper-parameter optimization. J Mach Learn Res 2012;13:281-305.",
    "torch": "Paszke A, Gross S, et al. PyTorch: an imperative style, high-performance deep learning library. "
    "NeurIPS 2019.",
    "tpe": "Bergstra J, Bardenet R, Bengio Y, Kégl B. Algorithms for hyper-parameter optimization. NeurIPS 2011.",
    "tune": "Liaw R, Liang E, et al. Tune: a research platform for distributed model selection and training. "
    "arXiv:1807.05118, 2018.",
    "seeds": "Bouthillier X, Delaunay P, et al. Accounting for variance in machine learning benchmarks. MLSys 2021.",
    "wilson": "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc "
    "1927;22:209-212.",
    "resnet": "He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR 2016.",
    "vgg": "Simonyan K, Zisserman A. Very deep convolutional networks for large-scale image recognition. ICLR 2015.",
    "densenet": "Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. CVPR 2017.",
    "mobilenet_v2": "Sandler M, Howard A, et al. MobileNetV2: inverted residuals and linear bottlenecks. CVPR 2018.",
    "mobilenet_v3": "Howard A, Sandler M, Chu G, et al. Searching for MobileNetV3. ICCV 2019.",
    "efficientnet": "Tan M, Le QV. EfficientNet: rethinking model scaling for convolutional neural networks. "
    "ICML 2019.",
    "squeezenet": "Iandola FN, Han S, et al. SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB "
    "model size. arXiv:1602.07360, 2016.",
    "resnext": "Xie S, Girshick R, Dollár P, Tu Z, He K. Aggregated residual transformations for deep neural networks. "
    "CVPR 2017.",
    "wide_resnet": "Zagoruyko S, Komodakis N. Wide residual networks. BMVC 2016.",
    "efficientnet_v2": "Tan M, Le QV. EfficientNetV2: smaller models and faster training. ICML 2021.",
    "regnet": "Radosavovic I, Kosaraju RP, Girshick R, He K, Dollár P. Designing network design spaces. CVPR 2020.",
    "vit": "Dosovitskiy A, Beyer L, et al. An image is worth 16x16 words: transformers for image recognition at scale. "
    "ICLR 2021.",
    "swin": "Liu Z, Lin Y, et al. Swin transformer: hierarchical vision transformer using shifted windows. ICCV 2021.",
    "convnext": "Liu Z, Mao H, Wu C-Y, Feichtenhofer C, Darrell T, Xie S. A ConvNet for the 2020s. CVPR 2022.",
}
_KEY = r"\[@(\w+)\]"


def cite(text: str) -> str:
    """``text`` with each ``[@key]`` replaced by the surnames and year of the reference: "(Akiba et al., 2019)".

    Users' text has no such key: its brackets are escaped.
    """
    return re.sub(_KEY, lambda found: f"({_short(found[1])})", text)


def full_references(text: str) -> list[str]:
    """The full references of the keys in ``text``, by name."""
    return sorted({REFERENCES[key] for key in re.findall(_KEY, text)})


def of_backbone(name: str) -> str | None:
    """The key of a backbone's paper: "resnet" for "resnet18"; None if there is none."""
    return next((key for key in sorted(REFERENCES, key=len, reverse=True) if name.startswith(key)), None)


def _short(key: str) -> str:
    """ "Akiba et al., 2019", from the authors and the last year of the reference."""
    authors = re.split(r"(?<=[A-Z])\. |, et al\. ", REFERENCES[key])[0].split(", ")
    surnames = [author.rsplit(" ", 1)[0] for author in authors]
    year = re.findall(r"\b(?:19|20)\d\d\b", REFERENCES[key])[-1]
    several = ", et al." in REFERENCES[key] or len(surnames) > 2
    return f"{surnames[0] + ' et al.' if several else ' & '.join(surnames)}, {year}"
