"""A page's content as Markdown, for GET /v1/pages/{id}/markdown: the common blocks only."""

from .notion_rich import Rich
from .notion_tree import Node, Tree

PREFIXES = {
    "heading_1": "# ",
    "heading_2": "## ",
    "heading_3": "### ",
    "heading_4": "#### ",
    "bulleted_list_item": "- ",
    "numbered_list_item": "1. ",
    "quote": "> ",
}
MARKS = (("code", "`"), ("bold", "**"), ("italic", "*"), ("strikethrough", "~~"))


def rich_markdown(rich: Rich) -> str:
    return "".join(_run(item) for item in rich)


def _run(item: dict[str, object]) -> str:
    text = str(item["plain_text"])
    annotations = item["annotations"]
    assert isinstance(annotations, dict)
    for name, mark in MARKS:
        if annotations.get(name) and text.strip():
            text = f"{mark}{text}{mark}"
    return f"[{text}]({item['href']})" if item["href"] else text


def block_markdown(tree: Tree, block: Node, indent: str = "") -> str:
    kind, inner = block.data["type"], block.data["content"]
    if kind == "divider":
        return indent + "---"
    if kind == "code":
        return f"{indent}```{inner['language']}\n{rich_markdown(inner['rich_text'])}\n{indent}```"
    if kind == "image":
        return f"{indent}![{rich_markdown(inner['caption'])}]({inner['external']['url']})"
    prefix = f"- [{'x' if inner['checked'] else ' '}] " if kind == "to_do" else PREFIXES.get(kind, "")
    text = indent + prefix + rich_markdown(inner.get("rich_text") or [])
    below = [block_markdown(tree, child, indent + "\t") for child in tree.below(block.id)]
    return "\n".join([text, *below])


def page_markdown(tree: Tree, page: Node) -> str:
    return "\n".join(block_markdown(tree, block) for block in tree.below(page.id) if block.kind == "block")
