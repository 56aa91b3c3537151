from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from spacy.language import Language

from spacy_slmre.connectors.base import PipelineRunner
from spacy_slmre.connectors.mcp import make_server
from spacy_slmre.documents import RelationDocument
from tests.conftest import TEXTS


def call(server: Any, tool: str, **arguments: Any) -> Any:
    async def connect() -> Any:
        async with Client(server) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(connect())


def test_tools_find_relations_with_the_labels_of_the_pipeline_or_the_call(nlp: Language) -> None:
    server = make_server(PipelineRunner(nlp))
    result = call(server, "extract_relations", text=TEXTS[0])
    document = RelationDocument.from_dict(result.structured_content)
    assert document.text == TEXTS[0] and {relation.label for relation in document.relations} <= {"knows", "employer"}
    assert document.to_dict() == PipelineRunner(nlp).run([TEXTS[0]], ["text"])[0].to_dict()
    own = call(server, "extract_relations", text=TEXTS[0], labels=["rival"], threshold=0.0)
    assert {relation["label"] for relation in own.structured_content["relations"]} == {"rival"}
    listed = call(server, "list_labels").structured_content["labels"]
    assert [label["name"] for label in listed] == ["knows", "employer"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "Nobody is here."}, "The pipeline failed on this text. RuntimeError: this text is too sad"),
        ({"text": "Ann", "labels": ["a", "a"]}, "Labels must be unique"),
        ({"text": "Ann", "labels": []}, "label set is empty"),
        ({"text": "Ann", "threshold": 2}, "less than or equal to 1"),
    ],
)
def test_a_failure_is_an_error_that_the_assistant_can_read(nlp: Language, arguments: dict, message: str) -> None:
    result = call(make_server(PipelineRunner(nlp)), "extract_relations", **arguments)
    assert result.is_error and message in result.content[0].text


@pytest.mark.slow
def test_command_serves_a_client_over_standard_input_and_output(pipeline: str) -> None:
    command = ["-m", "spacy", "slmre", "mcp", pipeline]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    transport = stdio_client(StdioServerParameters(command=sys.executable, args=command, env=environment))

    async def connect() -> tuple[Any, Any, Any]:
        async with Client(transport) as client:
            tools = await client.list_tools()
            answers = await asyncio.gather(
                client.call_tool("extract_relations", {"text": TEXTS[0]}),
                client.call_tool("extract_relations", {"text": TEXTS[1], "labels": ["rival"], "threshold": 0.0}),
            )
            return tools, *answers

    tools, first, second = asyncio.run(connect())
    assert {tool.name for tool in tools.tools} == {"extract_relations", "list_labels"}
    (schema,) = (tool.input_schema for tool in tools.tools if tool.name == "extract_relations")
    assert schema["required"] == ["text"] and set(schema["properties"]) == {"text", "labels", "threshold"}
    assert RelationDocument.from_dict(first.structured_content).text == TEXTS[0]
    assert {one["label"] for one in second.structured_content["relations"]} == {"rival"}
