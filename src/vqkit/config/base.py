"""The base of every group of settings, and the ranges that several share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import VqkitError


class ActsOnly(NamedTuple):
    """Settings that have an effect only beside certain others.

    names: keys below the section that has this in its `conditions`, inner ones with dots.
    beside: in words what they need, `{at}` standing for the keys that lead to the section.
    holds: whether a section has what they need.
    """

    names: tuple[str, ...]
    beside: str
    holds: Callable[[Any], bool]


class Section(BaseModel):
    """A frozen group of settings; unknown keys are errors and attribute docstrings describe the
    fields.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    # Settings of this section, or below it, that do nothing unless others are set too. Of a user
    # they are refused, see `conditions.py`.
    conditions: ClassVar[tuple[ActsOnly, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _check_no_switches(cls, tree: Any) -> Any:
        """Python counts true as 1, which nobody means by it."""
        for name, value in tree.items() if isinstance(tree, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and not _is_switch_or_words(field.annotation):
                raise ValueError(f"{name} takes another value than {str(value).lower()}")
        return tree


def _is_switch_or_words(annotation: Any) -> bool:
    """Whether a field may be true or false: one of words may, as YAML reads `off` as false."""
    members = get_args(annotation)
    is_words = bool(members) and all(isinstance(member, str) for member in members)
    return is_words or bool in (annotation, *members)


SectionT = TypeVar("SectionT", bound=Section)


def section_of(kind: type[SectionT], tree: Mapping[str, Any], where: str, hint: str) -> SectionT:
    """A section from plain values. VqkitError with the key below `where` and the hint."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise VqkitError(f"{where}.{key}: {first['msg']}; {hint}") from error


class Root(Section):
    """All settings of one kind of run; its recipes lie in `recipe_folder` of the package, and
    `default_recipe` is for data that no recipe is named after.
    """

    recipe_folder: ClassVar[str]
    default_recipe: ClassVar[str]


Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=1, le=8192)]
