"""MCP: a server with which an assistant can use a pipeline that runs on this machine."""

from __future__ import annotations

from typing import Annotated, Any

from spacy_slmre import __version__
from spacy_slmre.connectors.base import PipelineRunner
from spacy_slmre.util.extras import require_extra

with require_extra("mcp", "The MCP server"):
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from pydantic import Field


def make_server(runner: PipelineRunner) -> MCPServer:
    """Make a server with the tools `extract_relations` and `list_labels`; `run("stdio")` serves it."""
    server = MCPServer(
        "spacy-slmre",
        version=__version__,
        instructions="Extract relations between the entities of a text with a model that runs on this machine.",
        log_level="WARNING",
    )

    @server.tool()
    async def extract_relations(
        text: Annotated[str, Field(description="The text.")],
        labels: Annotated[
            list[str] | None, Field(description="Relations to look for, instead of those that list_labels returns.")
        ] = None,
        threshold: Annotated[
            float | None,
            Field(ge=0.0, le=1.0, description="Minimum probability of a relation. Default: the pipeline's."),
        ] = None,
    ) -> dict[str, Any]:
        """Find the entities of a text and the relations between them.

        The result has "entities" and "sentences" with character offsets; "relations", best first, each with head, tail,
        label and score (a probability); and "report", the numbers of pairs that were considered, scored and skipped.
        """
        try:
            (document,) = await runner.arun([text], ["text"], labels=labels, threshold=threshold)
        except (ValueError, TypeError) as error:
            raise ToolError(str(error)) from error
        if document.error is not None:
            raise ToolError(f"The pipeline failed on this text. {document.error}")
        return document.to_dict()

    @server.tool()
    def list_labels() -> dict[str, Any]:
        """List the relations that the pipeline looks for, with definitions and the entity types of head and tail."""
        schema = runner.schema()
        return {"labels": [one for one in schema.to_dict()["labels"] if one["name"] != schema.negative_label]}

    return server
