"""`python -m spacy slmre pretrain`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from spacy_slmre.cli.app import slmre_cli
from spacy_slmre.cli.output import log, show_errors


@slmre_cli.command("pretrain")
def pretrain_command(
    texts: Annotated[
        list[str],
        typer.Argument(help="Files or folders (.txt, .jsonl, .spacy), or - for standard input."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: a base model for tune.")],
    base: Annotated[
        str, typer.Option(help="Base model: the packaged one, a folder or a hub id.")
    ] = "smollm2-135m-instruct",
    revision: Annotated[str | None, typer.Option(help="Commit or tag on the hub.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    block_size: Annotated[int, typer.Option(help="Tokens of a block.")] = 1024,
    blocks_per_step: Annotated[int, typer.Option(help="Blocks of one optimizer step.")] = 16,
    epochs: Annotated[float, typer.Option(help="Times through the text.")] = 1.0,
    max_steps: Annotated[int, typer.Option(help="Stop after this many steps; 0 sets no limit.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = 2e-5,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the rate rises.")] = 0.03,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.1,
    lora_rank: Annotated[
        int, typer.Option(help="Train LoRA weights of this rank and merge them; 0 trains all weights.")
    ] = 0,
    holdout: Annotated[float, typer.Option(help="Share of the text that perplexity is measured on.")] = 0.05,
    eval_blocks: Annotated[int, typer.Option(help="Most blocks that it is measured on.")] = 100,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 250,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of order and held-out documents.")] = 42,
    format: Annotated[
        str | None, typer.Option("--format", help="Of the input: txt, lines, jsonl, spacy.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="Field of the text in JSONL.")] = "text",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output, and what an interrupted run has left.")
    ] = False,
) -> None:
    """Let a base model read on in raw text of a domain, as a better start for tuning there.

    Ends with the perplexity on held-out text before and after. The output is a base model:
    slmre tune CONFIG --model.base OUTPUT
    """
    with show_errors():
        from spacy_slmre.extraction.inputs import find_inputs
        from spacy_slmre.study.dapt import run_pretraining
        from spacy_slmre.study.pretraining import PretrainingSettings

        settings = PretrainingSettings(
            block_size=block_size,
            blocks_per_step=blocks_per_step,
            epochs=epochs,
            max_steps=max_steps,
            learning_rate=learning_rate,
            warmup=warmup,
            weight_decay=weight_decay,
            lora_rank=lora_rank,
            holdout=holdout,
            eval_blocks=eval_blocks,
            save_every=save_every,
            gradient_checkpointing=gradient_checkpointing,
            seed=seed,
        )
        documents = _read(find_inputs(texts, format, output), text_field)
        try:
            metrics = run_pretraining(
                documents,
                output,
                settings,
                base=base,
                revision=revision,
                device=device,
                overwrite=overwrite,
                say=log,
            )
        except KeyboardInterrupt:
            log("Interrupted. Repeat the command to resume from the last checkpoint.")
            raise typer.Exit(130) from None
        before, after = metrics["perplexity_before"], metrics["perplexity_after"]
        log(f"Perplexity on held-out text: {before:.2f} before, {after:.2f} after {metrics['steps']} steps.")
        log(f"Pretrained in {metrics['seconds']:.0f} s → {output}")


def _read(inputs: list[tuple[str, str]], text_field: str) -> list[str]:
    import spacy

    from spacy_slmre.extraction.inputs import ExtractionError, read_inputs

    texts = []
    for source in read_inputs(inputs, spacy.blank("en").vocab, sys.stdin.buffer, text_field):
        if source.error is not None or source.content is None:
            raise ExtractionError(f"{source.id}: {source.error}")
        texts.append(source.content if isinstance(source.content, str) else source.content.text)
    return texts
