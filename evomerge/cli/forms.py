"""Options of commands that write a model, for other forms of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evomerge.errors import EvomergeError, InputError

if TYPE_CHECKING:
    from evomerge.score import Difference

DtypeOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="A copy as float32, bfloat16 or float16.")
]
ShardOption = Annotated[
    float | None, typer.Option(metavar="GIB", help="A copy in files of this size at most.")
]
RankOption = Annotated[
    int | None, typer.Option(metavar="RANK", help="A LoRA adapter of the base too.")
]
GgufOption = Annotated[
    bool, typer.Option("--gguf", help="A GGUF file for llama.cpp too, unquantized.")
]
PushOption = Annotated[
    str | None, typer.Option("--push-to-hub", metavar="OWNER/NAME", help="Upload what is written.")
]
PublicOption = Annotated[
    bool, typer.Option("--public", help="Everybody can see the repository; else it is private.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be uploaded, and upload nothing.")
]


class OtherForms:
    """What is wanted besides a checkpoint.

    Args:
        dtype: Type of a copy.
        shard_gib: Size of a copy's files.
        lora_rank: Rank of an adapter.
        gguf: Whether there is a GGUF file.
        push_to_hub: A repository.
        public: Whether everybody can see it.
        dry_run: Whether nothing is uploaded.

    Raises:
        InputError: A value is out of range, or goes with none of the others.
        EvomergeError: The hub cannot be written to.
    """

    def __init__(
        self,
        dtype: str | None,
        shard_gib: float | None,
        lora_rank: int | None,
        gguf: bool,
        push_to_hub: str | None,
        public: bool,
        dry_run: bool,
    ) -> None:
        from evomerge.promote.forms import Forms

        self.forms = Forms(dtype, shard_gib, lora_rank, gguf)
        self.forms.check()
        self.repository, self.is_public, self.is_dry = push_to_hub, public, dry_run
        if push_to_hub is None and (public or dry_run):
            raise InputError("--public and --dry-run go with --push-to-hub OWNER/NAME")
        if push_to_hub is not None:
            from evomerge.promote.publish import check_repository, files_there

            names = [push_to_hub, *([_of_adapter(push_to_hub)] if lora_rank is not None else [])]
            for name in names:
                check_repository(name)
                if not dry_run:
                    files_there(name, is_private=not public)

    def write(
        self,
        model_dir: Path,
        facts: dict[str, Any],
        compare: Callable[[Path], dict[str, tuple[float, Difference]]] | None = None,
    ) -> list[str]:
        """Write them beside a checkpoint.

        Args:
            model_dir: The checkpoint.
            facts: What is told to machines; added to.
            compare: Scores an adapter beside the checkpoint's record.

        Returns:
            What is told to people.

        Raises:
            EvomergeError: One cannot be written; the checkpoint stays.
        """
        try:
            return self._write(model_dir, facts, compare)
        except EvomergeError as error:
            error.args = (f"{model_dir} is written. Beside it: {error}",)
            raise

    def _write(
        self,
        model_dir: Path,
        facts: dict[str, Any],
        compare: Callable[[Path], dict[str, tuple[float, Difference]]] | None,
    ) -> list[str]:
        from evomerge.promote.forms import describe, write_copy, write_low_rank

        lines = []
        shipped = model_dir
        copy_dir = self.forms.copy_dir(model_dir)
        if copy_dir is not None:
            write_copy(model_dir, copy_dir, self.forms)
            lines.append(f"{copy_dir}: a copy of {model_dir.name}")
            facts["copy"], shipped = str(copy_dir), copy_dir
        adapter_dir = self.forms.adapter_dir(model_dir)
        if adapter_dir is not None:
            assert self.forms.lora_rank is not None
            found = write_low_rank(model_dir, adapter_dir, self.forms.lora_rank, _progress)
            lines.append(f"{adapter_dir}: LoRA adapter of {describe(found)}")
            facts["adapter"] = {
                "folder": str(adapter_dir),
                "rank": found.rank,
                "error": found.error,
                "error_of_weights": found.error_of_weights,
                "left_out": found.left_out,
            }
            if compare is not None:
                lines += _compared(compare(adapter_dir), facts["adapter"])
        gguf_path = self.forms.gguf_path(model_dir)
        if gguf_path is not None:
            from evomerge.promote.gguf import write_gguf

            written = write_gguf(shipped, gguf_path)
            lines.append(written.line())
            facts["gguf"] = {**asdict(written), "path": str(gguf_path)}
        if self.repository is not None:
            lines += self._push(self.repository, shipped, facts)
            if adapter_dir is not None:
                lines += self._push(_of_adapter(self.repository), adapter_dir, facts)
        return lines

    def _push(self, repository: str, folder: Path, facts: dict[str, Any]) -> list[str]:
        from evomerge.promote.publish import prepare, upload

        planned = prepare(folder, repository)
        if not self.is_dry:
            planned = upload(folder, planned, is_private=not self.is_public)
        facts.setdefault("uploads", []).append(
            {"repository": repository, "files": planned.files, "url": planned.url}
        )
        return planned.lines()


def _of_adapter(repository: str) -> str:
    return f"{repository}-lora"


def _compared(compared: dict[str, tuple[float, Difference]], facts: dict[str, Any]) -> list[str]:
    facts["validation"] = {
        name: {"value": mean, "difference": asdict(difference)}
        for name, (mean, difference) in compared.items()
    }
    return [
        f"  {name} on validation: {mean:.4f}, {difference.value:+.4f} against the merge, 95 % "
        f"interval {difference.low:+.4f} to {difference.high:+.4f}"
        for name, (mean, difference) in compared.items()
    ]


def _progress(done: int, total: int) -> None:
    if total and (done == total or done % 32 == 0):
        typer.echo(f"LoRA adapter: {done} of {total} tensors", err=True)
