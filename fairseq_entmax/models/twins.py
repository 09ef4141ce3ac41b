"""The sparse twin of every arch of fairseq, and of other user-dirs: ``ARCH_entmax``.

A twin is its stock model with alpha-entmax in its attention and output layer: the same flags,
parameters and state-dict names, so that its checkpoints load; with ``--output-alpha 1
--attention-alpha 1`` it is the stock model.
"""

from argparse import Namespace
from typing import Any, Callable, Dict, Iterator, Tuple, Type

from fairseq import models as registry
from fairseq.dataclass.utils import merge_with_parent
from fairseq.models import BaseFairseqModel
from omegaconf import OmegaConf

from fairseq_entmax.modules.output import check_output_args, criterion_name
from fairseq_entmax.modules.schedule import schedule_alphas
from fairseq_entmax.modules.sparsify import AttentionAlphas, attention_places, sparsify

from .flags import DEFAULT_ALPHA, add_alpha_args, set_alpha_defaults, sparsify_options
from .kinds import REFUSED, attentions_of, has_temperature, why_no_output

_OUR_CRITERIONS = (
    *("entmax_loss", "entmax_loss_with_alignment"),
    *("entmax_risk", "masked_entmax_loss"),
)


class SparseTwin:
    """Mix-in before a stock model class; see :func:`register_twin`.

    Example::

        >>> twin = registry.ARCH_MODEL_REGISTRY["bart_base_entmax"]
        >>> twin.stock.__name__, twin.attentions
        ('BARTModel', ('encoder', 'decoder', 'cross'))
    """

    stock: Type[BaseFairseqModel]
    no_output: str = ""  # why the model's output stays softmax, if so
    attentions: Tuple[str, ...] = AttentionAlphas._fields
    scaled: bool = True
    defaults: Dict[str, Any] = {}  # of flags that the stock model has not

    @classmethod
    def configure(cls, args: Any) -> None:
        """Fill in what was not given; also under hydra, which never sees the parser."""
        set_alpha_defaults(args, cls.attentions, not cls.no_output)
        for name, value in cls.defaults.items():
            if getattr(args, name, None) is None:
                setattr(args, name, value)

    @classmethod
    def hub_models(cls) -> Dict[str, Any]:
        """None: the stock model's weights were trained with softmax."""
        return {}

    @classmethod
    def add_args(cls, parser: Any) -> None:
        """The stock model's flags, and those that make it sparse."""
        cls.stock.add_args(parser)
        add_alpha_args(parser, cls.attentions, not cls.no_output, cls.scaled)

    @classmethod
    def build_model(cls, args: Any, task: Any) -> BaseFairseqModel:
        """The stock model, made sparse in place.

        Raises:
            ValueError: as :func:`fairseq_entmax.modules.sparsify`; or the criterion needs
                log-probabilities, or an output that the model has not.
        """
        args, config = _settings(cls.stock, args)
        cls.configure(args)
        why_not = cls.no_output or _why_not_alone(task)
        if why_not and criterion_name(args) in _OUR_CRITERIONS:
            raise ValueError(f"--criterion {criterion_name(args)}: {why_not}")
        if not cls.no_output:
            check_output_args(args)
        if not criterion_name(args):  # hydra keeps it elsewhere; lstm reads it
            args.criterion = "entmax_loss"
        model = super().build_model(config, task)  # type: ignore[misc]
        options = sparsify_options(args)
        if not attention_places(model) and options["attention_alpha"] in (1, DEFAULT_ALPHA):
            # nobody asked: it was built without attention
            kept = options["output_temperature"]
            options = {"attention_alpha": 1.0, "output_temperature": kept}
        output_alpha = None if cls.no_output else args.output_alpha
        sparsify(model, output_alpha, untrained=True, **options)
        schedules = (
            getattr(args, f"{kind}_alpha_schedule", None) for kind in ("output", "attention")
        )
        return schedule_alphas(model, *schedules)


def _why_not_alone(task: Any) -> str:
    """Why a criterion of one decoder does not train the whole model; "" if it does."""
    further = ", ".join(getattr(task, "multitask_tasks", None) or ())
    return further and (
        f"--multitask-config-yaml gives the model further decoders ({further}), which fairseq's "
        "own criterion alone trains: use it with --output-alpha 1 (attention may be sparse)"
    )


def _settings(stock: Type[BaseFairseqModel], args: Any) -> Tuple[Namespace, Any]:
    """The twin's settings, and the stock model's own in the form that its builder expects."""
    dataclass = getattr(stock, "__dataclass", None)
    config = None
    if OmegaConf.is_config(args):
        if dataclass is not None:
            known = dataclass.__dataclass_fields__
            own = OmegaConf.masked_copy(args, [key for key in args if key in known])
            own.__dict__["_parent"] = args.__dict__["_parent"]
            config = merge_with_parent(dataclass(), own)
        args = Namespace(**OmegaConf.to_container(args, resolve=True))
    elif dataclass is not None:
        config = dataclass.from_namespace(args)
    return args, args if config is None else config


def register_twin(arch: str) -> None:
    """Register ``ARCH_entmax`` for a registered arch, unless it cannot be sparse.

    Where the arch begins with its model's name, ``MODEL_entmax_REST`` is another name of it.
    """
    name = registry.ARCH_MODEL_NAME_REGISTRY[arch]
    stock = registry.MODEL_REGISTRY[name]
    if issubclass(stock, SparseTwin) or name in REFUSED:
        return
    twin_name = f"{name}_entmax"
    if twin_name not in registry.MODEL_REGISTRY:
        registry.register_model(twin_name)(_twin_class(name, stock))
    twin = registry.MODEL_REGISTRY[twin_name]
    for twin_arch in _names(arch, name):
        if twin_arch not in registry.ARCH_MODEL_REGISTRY:
            settings = _settings_of(twin, registry.ARCH_CONFIG_REGISTRY[arch])
            _register_arch(twin_name, twin_arch)(settings)


def _twin_class(name: str, stock: Type[BaseFairseqModel]) -> Type[BaseFairseqModel]:
    members = {
        "__doc__": f"fairseq's ``{name}`` with alpha-entmax.",
        "__module__": __name__,
        "stock": stock,
        "no_output": why_no_output(name, stock),
        "attentions": attentions_of(name, stock),
        "scaled": has_temperature(name),
    }
    return type(f"Entmax{stock.__name__}", (SparseTwin, stock), members)


def _settings_of(twin: Type[SparseTwin], configure: Callable[[Any], None]) -> Callable[[Any], None]:
    def configure_twin(args: Any) -> None:
        twin.configure(args)
        configure(args)

    return configure_twin


def _names(arch: str, model: str) -> Iterator[str]:
    yield f"{arch}_entmax"
    if arch.startswith(model):
        yield f"{model}_entmax{arch[len(model) :]}"


_register_arch = registry.register_model_architecture


def register_twins() -> None:
    """Register the twins of all archs that there are, and of those that come later."""

    def register_model_architecture(model_name: str, arch_name: str) -> Callable[[Any], Any]:
        def register(function: Any) -> Any:
            _register_arch(model_name, arch_name)(function)
            register_twin(arch_name)
            return function

        return register

    for arch in list(registry.ARCH_MODEL_REGISTRY):
        register_twin(arch)
    registry.register_model_architecture = register_model_architecture
