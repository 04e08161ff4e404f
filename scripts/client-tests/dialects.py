"""Unmodified PyPI clients of other dialects against a started daemon: dialects.py http://host:port"""
import json
import os
import sys

HOST = sys.argv[1]
MODEL, VECTORS, QUESTION = "lantern-guide", "minilm", "Who are you?"
TURNS = [{"role": "user", "content": QUESTION}]
CLOCK = {"name": "get_current_time", "description": "Get the current time",
         "parameters": {"type": "object", "properties": {"timezone": {"type": "string"}}}}
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}


def openai_client():
    import openai
    client = openai.OpenAI(base_url=HOST + "/v1", api_key="any")
    whole = client.chat.completions.create(model=MODEL, messages=TURNS, temperature=0)
    text = whole.choices[0].message.content
    assert "lantern-guide" in text and whole.choices[0].finish_reason == "stop" and whole.usage.total_tokens > 0
    parts = client.chat.completions.create(model=MODEL, messages=TURNS, temperature=0, stream=True, stream_options={"include_usage": True})
    parts = list(parts)
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == text and parts[-1].usage.completion_tokens > 0
    called = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "What time is it?"}], temperature=0,
                                            tools=[{"type": "function", "function": CLOCK}]).choices[0]
    assert called.finish_reason == "tool_calls" and called.message.tool_calls[0].function.name == "get_current_time"
    turns = [{"role": "user", "content": "What time is it?"}, called.message, {"role": "tool", "tool_call_id": called.message.tool_calls[0].id, "content": "14:35"}]
    told = client.chat.completions.create(model=MODEL, messages=turns, temperature=0, tools=[{"type": "function", "function": CLOCK}])
    assert "14:35" in told.choices[0].message.content
    formed = client.chat.completions.create(model=MODEL, messages=TURNS, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})
    assert isinstance(json.loads(formed.choices[0].message.content)["ok"], bool)
    assert client.completions.create(model=MODEL, prompt=QUESTION, temperature=0).choices[0].text == text
    vectors = client.embeddings.create(model=VECTORS, input=["one", "two"]).data
    assert len(vectors) == 2 and len(vectors[0].embedding) == 384
    assert MODEL + ":latest" in [m.id for m in client.models.list()] and client.models.retrieve(MODEL).owned_by == "library"
    response = client.responses.create(model=MODEL, input=QUESTION, temperature=0)
    assert response.output_text == text, response
    with client.responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream:
        assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == text
    try:
        client.chat.completions.create(model="nope", messages=TURNS)
        raise AssertionError("an unknown model was answered")
    except openai.NotFoundError as error:
        assert "model 'nope' not found" in str(error)
    return openai.__version__


def anthropic_client():
    import anthropic
    client = anthropic.Anthropic(base_url=HOST, api_key="any")
    whole = client.messages.create(model=MODEL, max_tokens=100, messages=TURNS)
    assert whole.content[0].type == "text" and whole.stop_reason == "end_turn" and whole.usage.output_tokens > 0
    with client.messages.stream(model=MODEL, max_tokens=100, messages=TURNS) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text and final.stop_reason == "end_turn"
    tool = {"name": CLOCK["name"], "description": CLOCK["description"], "input_schema": CLOCK["parameters"]}
    with client.messages.stream(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "What time is it?"}], tools=[tool], tool_choice={"type": "any"}) as stream:
        called = stream.get_final_message()
    block = called.content[0]
    assert called.stop_reason == "tool_use" and block.name == "get_current_time" and isinstance(block.input, dict)
    turns = [{"role": "user", "content": "What time is it?"}, {"role": "assistant", "content": called.content},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "14:35"}]}]
    told = client.messages.create(model=MODEL, max_tokens=100, messages=turns, tools=[tool])
    assert "14:35" in told.content[0].text
    try:
        client.messages.create(model="nope", max_tokens=1, messages=TURNS)
        raise AssertionError("an unknown model was answered")
    except anthropic.NotFoundError as error:
        assert "model 'nope' not found" in str(error)
    return anthropic.__version__


def langchain_ollama_client():
    from importlib.metadata import version
    from langchain_core.tools import tool
    from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

    @tool
    def get_current_time(timezone: str = "UTC") -> str:
        """Get the current time"""
        return "14:35"

    chat = ChatOllama(base_url=HOST, model=MODEL, temperature=0, validate_model_on_init=True)
    text = chat.invoke(QUESTION).content
    assert "lantern-guide" in text and "".join(p.content for p in chat.stream(QUESTION)) == text
    called = chat.bind_tools([get_current_time]).invoke("What time is it?")
    assert called.tool_calls[0]["name"] == "get_current_time", called
    formed = chat.with_structured_output(SCHEMA | {"title": "x", "description": "x"}, method="json_schema").invoke(QUESTION)
    assert isinstance(formed["ok"], bool)
    assert OllamaLLM(base_url=HOST, model=MODEL, temperature=0).invoke(QUESTION) == text
    assert len(OllamaEmbeddings(base_url=HOST, model=VECTORS).embed_query("x")) == 384
    return version("langchain-ollama")


def llama_index_client():
    from importlib.metadata import version
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.ollama import Ollama
    llm = Ollama(base_url=HOST, model=MODEL, temperature=0, request_timeout=60)
    text = llm.chat([ChatMessage(role="user", content=QUESTION)]).message.content
    assert "lantern-guide" in text and llm.complete(QUESTION).text == text
    assert list(llm.stream_complete(QUESTION))[-1].text == text
    assert llm.get_context_window() == 2048 if hasattr(llm, "get_context_window") else True
    return version("llama-index-llms-ollama")


def litellm_client():
    from importlib.metadata import version
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm
    litellm.telemetry = False
    for model, more in [(f"ollama_chat/{MODEL}", {"api_base": HOST}), (f"ollama/{MODEL}", {"api_base": HOST}),
                        (f"openai/{MODEL}", {"api_base": HOST + "/v1", "api_key": "any"}), (f"anthropic/{MODEL}", {"api_base": HOST, "api_key": "any"})]:
        whole = litellm.completion(model=model, messages=TURNS, temperature=0, max_tokens=100, **more)
        assert whole.choices[0].message.content and whole.usage.completion_tokens > 0, (model, whole)
        parts = litellm.completion(model=model, messages=TURNS, temperature=0, max_tokens=100, stream=True, **more)
        assert "".join(p.choices[0].delta.content or "" for p in parts) == whole.choices[0].message.content, model
    called = litellm.completion(model=f"ollama_chat/{MODEL}", messages=[{"role": "user", "content": "What time is it?"}], temperature=0,
                                tools=[{"type": "function", "function": CLOCK}], api_base=HOST)
    assert called.choices[0].message.tool_calls[0].function.name == "get_current_time", called
    assert len(litellm.embedding(model=f"ollama/{VECTORS}", input=["x"], api_base=HOST).data[0]["embedding"]) == 384
    return version("litellm")


def llm_client():
    from importlib.metadata import version
    os.environ["OLLAMA_HOST"] = HOST
    import llm
    model = llm.get_model(MODEL + ":latest")
    assert "lantern-guide" in model.prompt(QUESTION, temperature=0).text()
    assert "".join(model.prompt(QUESTION, stream=True, temperature=0))
    assert isinstance(json.loads(model.prompt(QUESTION, schema=SCHEMA).text())["ok"], bool)
    assert len(llm.get_embedding_model(VECTORS + ":latest").embed("x")) == 384
    return f"{version('llm')} + llm-ollama {version('llm-ollama')}"


for client in (openai_client, anthropic_client, langchain_ollama_client, llama_index_client, litellm_client, llm_client):
    print(f"{client.__name__} {client()} passed")
