"""OpenAI's Python client: `LLADA_URL=http://127.0.0.1:8080 python openai_sdk.py`."""

import json
from typing import Literal

import openai
from pydantic import BaseModel

import checks

client = openai.OpenAI(base_url=f"{checks.URL}/v1", api_key=checks.KEY, max_retries=0)
MODEL = checks.model()["id"]
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Paris"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SECOND = {"type": "function", "function": {"name": "bell", "description": "Rings a bell"}}


def chat(**options):
    return client.chat.completions.create(
        **{"model": MODEL, "messages": HELLO, "max_tokens": 16, "temperature": 0, **options}
    )


def check_models():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL


def check_chat():
    answer = chat()
    assert answer.object == "chat.completion" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert chat().choices[0].message.content == answer.choices[0].message.content


def check_stream():
    whole = chat().choices[0].message.content
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == whole
    assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices
    assert chunks[-2].choices[0].finish_reason
    with client.chat.completions.stream(model=MODEL, messages=HELLO, max_tokens=16, temperature=0) as stream:
        events = [event.type for event in stream]
        assert stream.get_final_completion().choices[0].message.content == whole
    assert "content.delta" in events and "content.done" in events


def check_several():
    answers = chat(n=2, temperature=1, seed=1).choices
    assert [choice.index for choice in answers] == [0, 1]
    streamed = ["", ""]
    for chunk in chat(n=2, temperature=1, seed=1, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == [choice.message.content for choice in answers]


def check_stop():
    whole = chat().choices[0].message.content
    word = whole.split()[1]
    answer = chat(stop=[word]).choices[0]
    assert answer.message.content == whole[: whole.index(word)] and answer.finish_reason == "stop"
    assert "".join(c.choices[0].delta.content or "" for c in chat(stop=word, stream=True)) == answer.message.content


def check_parts_and_roles():
    parts = [{"type": "text", "text": "Hello"}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts, "name": "ann"}]
    assert chat(messages=messages).choices[0].message.content is not None


def check_parse():
    class Animal(BaseModel):
        kind: Literal["wolf", "fox"]
        legs: int
        is_tame: bool

    answer = client.chat.completions.parse(
        model=MODEL, messages=HELLO, response_format=Animal, max_completion_tokens=48
    )
    assert isinstance(answer.choices[0].message.parsed, Animal)
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, response_format=Animal, max_completion_tokens=48
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Animal)


def check_form_without_cap():
    names = [f"a_rather_long_name_{i}" for i in range(3)]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}, "required": names}
    form = {"type": "json_schema", "json_schema": {"name": "names", "schema": schema}}
    answer = chat(response_format=form, max_tokens=None)
    assert list(json.loads(answer.choices[0].message.content)) == names


def check_json_object():
    answer = chat(response_format={"type": "json_object"}, max_tokens=32)
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def check_extra_body():
    body = {"steps": 8, "block_length": 8, "gen_length": 16, "remasking": "random", "regex": "[a-z ]{4,20}"}
    answer = chat(extra_body=body)
    assert answer.choices[0].message.content.replace(" ", "").isalpha()
    assert answer.usage.model_extra["canvas_tokens"] == 16
    assert chat(extra_body={"choices": ["yes", "no"]}).choices[0].message.content in ("yes", "no")


def check_canvas():
    whole = chat().choices[0].message.content
    for tokens in (16, 4):
        shown = [
            chunk.choices[0].delta.content
            for chunk in chat(stream=True, max_tokens=tokens, extra_body={"diffusing": True})
            if chunk.choices and chunk.choices[0].delta.content
        ]
        assert shown[-1] == chat(max_tokens=tokens).choices[0].message.content
        assert any("░" in text for text in shown[:-1])
    chunks = list(chat(stream=True, extra_body={"stream_events": True}))
    kinds = [chunk.object for chunk in chunks]
    assert "llada.canvas" in kinds and "llada.step" in kinds and "llada.done" in kinds
    texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(texts) == whole


def check_tools():
    checks.needs(512)
    call = lambda **options: chat(tools=[WEATHER, SECOND], max_tokens=64, **options)
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = call(tool_choice=choice).choices[0]
        assert answer.finish_reason == "tool_calls"
        made = answer.message.tool_calls[0]
        assert made.function.name in ("weather", "bell")
        arguments = json.loads(made.function.arguments)
        assert made.function.name == "bell" or arguments["city"] in ("Rome", "Paris")
    assert call(tool_choice="auto").choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert not call(tool_choice="none").choices[0].message.tool_calls
    # The result goes back to the model.
    messages = HELLO + [
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": made.id, "content": "sunny"},
    ]
    assert chat(messages=messages, tools=[WEATHER], tool_choice="none").choices[0].message.content is not None


def check_tools_streamed():
    checks.needs(512)
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, tools=[WEATHER], tool_choice="required", max_tokens=64
    ) as stream:
        events = [event.type for event in stream]
        choice = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in events
    assert choice.finish_reason == "tool_calls"
    assert json.loads(choice.message.tool_calls[0].function.arguments)["city"] in ("Rome", "Paris")


def complete(prompt="The wolf", **options):
    return client.completions.create(
        **{"model": MODEL, "prompt": prompt, "max_tokens": 12, "temperature": 0, **options}
    )


def check_completions():
    whole = complete().choices[0].text
    assert "".join(c.choices[0].text for c in complete(stream=True) if c.choices) == whole
    assert complete(echo=True).choices[0].text == "The wolf" + whole
    assert complete(suffix=" and slept.", extra_body={"hole_length": 4}).choices[0].text
    several = complete(prompt=["The wolf", "The fox"], n=2).choices
    assert [choice.index for choice in several] == [0, 1, 2, 3] and several[0].text == whole


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def check_fim():
    body = {"model": MODEL, "prompt": "The wolf", "suffix": " and slept.", "hole_length": 4}
    whole = client.post("/fim/completions", body=body, cast_to=dict)["choices"][0]
    assert whole["text"] and whole["message"]["content"] == whole["text"]


def check_errors():
    error = refused(openai.BadRequestError, lambda: chat(temperature=-1))
    assert error.param == "temperature" and error.type == "invalid_request_error"
    error = refused(openai.BadRequestError, lambda: chat(extra_body={"stepss": 3}))
    assert error.code == "unknown_parameter" and "steps" in error.message
    error = refused(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": "so " * 9000}]))
    assert error.code == "context_length_exceeded"
    refused(openai.BadRequestError, lambda: chat(messages=[]))
    refused(openai.NotFoundError, lambda: client.models.retrieve("nothing"))
    refused(openai.APIStatusError, lambda: client.embeddings.create(model=MODEL, input="a"))


if __name__ == "__main__":
    checks.run(dict(vars()))
