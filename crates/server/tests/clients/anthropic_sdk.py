"""Anthropic's Python client: `LLADA_URL=http://127.0.0.1:8080 python anthropic_sdk.py`."""

import anthropic
from pydantic import BaseModel

import checks

client = anthropic.Anthropic(base_url=checks.URL, api_key=checks.KEY, max_retries=0)
MODEL = checks.model()["id"]
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Rome", "Paris"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def ask(**options):
    return client.messages.create(
        **{"model": MODEL, "messages": HELLO, "max_tokens": 16, **options}
    )


def check_message():
    message = ask(system="Be brief.")
    assert message.type == "message" and message.role == "assistant"
    assert message.content[0].type == "text" and message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0


def check_blocks():
    content = [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]
    system = [{"type": "text", "text": "Be brief."}]
    message = ask(messages=[{"role": "user", "content": content}], system=system)
    assert message.content[0].text == ask(system="Be brief.").content[0].text


def check_stream():
    whole = ask()
    with client.messages.stream(model=MODEL, messages=HELLO, max_tokens=16) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens
    kinds = [event.type for event in ask(stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert "content_block_delta" in kinds and "message_delta" in kinds


def check_stop():
    whole = ask().content[0].text
    word = whole.split()[1]
    message = ask(stop_sequences=[word])
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == word
    assert message.content[0].text == whole[: whole.index(word)]


def check_parse():
    class Animal(BaseModel):
        kind: str
        legs: int

    message = client.messages.parse(model=MODEL, messages=HELLO, max_tokens=48, output_format=Animal)
    assert isinstance(message.parsed_output, Animal)


def check_count():
    count = client.messages.count_tokens(model=MODEL, messages=HELLO, system="Be brief.")
    assert count.input_tokens == ask(system="Be brief.").usage.input_tokens


def check_tools():
    checks.needs(512)
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}):
        message = ask(tools=[WEATHER], tool_choice=choice, max_tokens=64)
        call = message.content[-1]
        assert message.stop_reason == "tool_use" and call.type == "tool_use"
        assert call.name == "weather" and call.input["city"] in ("Rome", "Paris")
    with client.messages.stream(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice={"type": "any"}, max_tokens=64
    ) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message().content[-1]
    assert "input_json" in kinds and streamed.input["city"] in ("Rome", "Paris")
    # The result goes back to the model.
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    messages = HELLO + [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    assert ask(messages=messages, tools=[WEATHER]).content
    assert client.messages.count_tokens(model=MODEL, messages=messages, tools=[WEATHER]).input_tokens > 0


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_errors():
    error = refused(anthropic.BadRequestError, lambda: ask(extra_body={"temperature": -1}))
    assert error.body["error"]["type"] == "invalid_request_error"
    refused(anthropic.BadRequestError, lambda: ask(messages=[]))
    refused(anthropic.BadRequestError, lambda: ask(max_tokens=0))
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    refused(anthropic.BadRequestError, lambda: ask(messages=[{"role": "user", "content": [image]}]))


if __name__ == "__main__":
    checks.run(dict(vars()))
