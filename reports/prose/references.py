"""The literature that a methods paragraph cites."""

from __future__ import annotations

# key: how it stands in the text, the full reference
REFERENCES: dict[str, tuple[str, str]] = {
    "adamw": (
        "Loshchilov & Hutter, 2019",
        "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019.",
    ),
    "asha": (
        "Li et al., 2020",
        "Li L, Jamieson K, Rostamizadeh A, Gonina E, Ben-tzur J, Hardt M, Recht B, Talwalkar A. A system for massively "
        "parallel hyperparameter tuning. MLSys 2020.",
    ),
    "batchnorm": (
        "Ioffe & Szegedy, 2015",
        "Ioffe S, Szegedy C. Batch normalization: accelerating deep network training by reducing internal covariate "
        "shift. ICML 2015.",
    ),
    "bca": ("Efron, 1987", "Efron B. Better bootstrap confidence intervals. J Am Stat Assoc 1987;82:171-185."),
    "clusters": (
        "Davison & Hinkley, 1997",
        "Davison AC, Hinkley DV. Bootstrap methods and their application. Cambridge University Press, 1997.",
    ),
    "cosine": (
        "Loshchilov & Hutter, 2017",
        "Loshchilov I, Hutter F. SGDR: stochastic gradient descent with warm restarts. ICLR 2017.",
    ),
    "focal": (
        "Lin et al., 2017",
        "Lin T-Y, Goyal P, Girshick R, He K, Dollár P. Focal loss for dense object detection. ICCV 2017.",
    ),
    "holm": (
        "Holm, 1979",
        "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65-70.",
    ),
    "imagenet": (
        "Deng et al., 2009",
        "Deng J, Dong W, Socher R, Li L-J, Li K, Fei-Fei L. ImageNet: a large-scale hierarchical image database. "
        "CVPR 2009.",
    ),
    "mcnemar": (
        "McNemar, 1947",
        "McNemar Q. Note on the sampling error of the difference between correlated proportions or percentages. "
        "Psychometrika 1947;12:153-157.",
    ),
    "median": (
        "Golovin et al., 2017",
        "Golovin D, Solnik B, Moitra S, Kochanski G, Karro J, Sculley D. Google Vizier: a service for black-box "
        "optimization. KDD 2017.",
    ),
    "one_se": (
        "Breiman et al., 1984",
        "Breiman L, Friedman JH, Olshen RA, Stone CJ. Classification and regression trees. Wadsworth, 1984.",
    ),
    "optuna": (
        "Akiba et al., 2019",
        "Akiba T, Sano S, Yanase T, Ohta T, Koyama M. Optuna: a next-generation hyperparameter optimization framework. "
        "KDD 2019.",
    ),
    "random": (
        "Bergstra & Bengio, 2012",
        "Bergstra J, Bengio Y. Random search for hyper-parameter optimization. J Mach Learn Res 2012;13:281-305.",
    ),
    "torch": (
        "Paszke et al., 2019",
        "Paszke A, Gross S, Massa F, et al. PyTorch: an imperative style, high-performance deep learning library. "
        "NeurIPS 2019.",
    ),
    "tpe": (
        "Bergstra et al., 2011",
        "Bergstra J, Bardenet R, Bengio Y, Kégl B. Algorithms for hyper-parameter optimization. NeurIPS 2011.",
    ),
    "tune": (
        "Liaw et al., 2018",
        "Liaw R, Liang E, Nishihara R, Moritz P, Gonzalez JE, Stoica I. Tune: a research platform for distributed "
        "model selection and training. arXiv:1807.05118, 2018.",
    ),
    "wilson": (
        "Wilson, 1927",
        "Wilson EB. Probable inference, the law of succession, and statistical inference. J Am Stat Assoc "
        "1927;22:209-212.",
    ),
    "resnet": (
        "He et al., 2016",
        "He K, Zhang X, Ren S, Sun J. Deep residual learning for image recognition. CVPR 2016.",
    ),
    "vgg": (
        "Simonyan & Zisserman, 2015",
        "Simonyan K, Zisserman A. Very deep convolutional networks for large-scale image recognition. ICLR 2015.",
    ),
    "densenet": (
        "Huang et al., 2017",
        "Huang G, Liu Z, van der Maaten L, Weinberger KQ. Densely connected convolutional networks. CVPR 2017.",
    ),
    "mobilenet_v2": (
        "Sandler et al., 2018",
        "Sandler M, Howard A, Zhu M, Zhmoginov A, Chen L-C. MobileNetV2: inverted residuals and linear bottlenecks. "
        "CVPR 2018.",
    ),
    "mobilenet_v3": (
        "Howard et al., 2019",
        "Howard A, Sandler M, Chu G, et al. Searching for MobileNetV3. ICCV 2019.",
    ),
    "efficientnet": (
        "Tan & Le, 2019",
        "Tan M, Le QV. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019.",
    ),
    "squeezenet": (
        "Iandola et al., 2016",
        "Iandola FN, Han S, Moskewicz MW, Ashraf K, Dally WJ, Keutzer K. SqueezeNet: AlexNet-level accuracy with 50x "
        "fewer parameters and <0.5MB model size. arXiv:1602.07360, 2016.",
    ),
    "convnext": (
        "Liu et al., 2022",
        "Liu Z, Mao H, Wu C-Y, Feichtenhofer C, Darrell T, Xie S. A ConvNet for the 2020s. CVPR 2022.",
    ),
}


class Citations:
    """Cites works and remembers which, in order of their first citation."""

    def __init__(self) -> None:
        self._used: dict[str, None] = {}

    def __call__(self, *keys: str) -> str:
        """ "(Akiba et al., 2019; Liaw et al., 2018)"."""
        self._used |= dict.fromkeys(keys)
        return f"({'; '.join(REFERENCES[key][0] for key in keys)})"

    @property
    def full(self) -> list[str]:
        """The full references, by name."""
        return sorted(REFERENCES[key][1] for key in self._used)


def of_backbone(name: str) -> str | None:
    """The key of a backbone's paper: "resnet" for "resnet18"; None if there is none."""
    return next((key for key in sorted(REFERENCES, key=len, reverse=True) if name.startswith(key)), None)
