"""A history that is too long is told as such, whatever the words, the status and the moment."""

import json

import pytest

from tests.llm.dialects import ANTHROPIC, GEMINI, OPENAI
from tests.llm.wire import Refusal, Wire, says
from tests.servers.model import Garbage


def openai_error(message, code=None, kind="invalid_request_error"):
    """Return an error object in OpenAI's format."""
    return {"message": message, "code": code, "type": kind, "param": "messages"}


OPENROUTER = (
    "This endpoint's maximum context length is 200000 tokens. However, you requested about 260000 tokens (250000 of "
    'text input, 10000 of tool input). Please reduce the length of either one, or use the "middle-out" transform.'
)
LM_STUDIO = (
    "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 4096 tokens, which is not enough. Try to load the model with a larger context length."
)
SAID = {
    "openai": ("openai/x", 400, openai_error("Your messages resulted in too much.", "context_length_exceeded")),
    "openai, gpt-5": (
        "openai/x",
        400,
        openai_error("Your input exceeds the context window of this model. Please adjust your input and try again."),
    ),
    "openai, gpt-5 tokens": (
        "openai/x",
        400,
        openai_error("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000."),
    ),
    "openai, more than a minute's": (
        "openai/x",
        429,
        openai_error(
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 37000. The input or output "
            "tokens must be reduced in order to run successfully.",
            "rate_limit_exceeded",
            "tokens",
        ),
    ),
    "openrouter": ("openrouter/a/x", 400, {"message": OPENROUTER, "code": 400}),
    "mistral": (
        "mistral/x",
        400,
        openai_error(
            "Prompt contains 140000 tokens and 0 draft tokens, too large for model with 131072 maximum context length",
            "3051",
        ),
    ),
    "mistral, 422": (
        "mistral/x",
        422,
        openai_error("Prompt contains 140000 tokens, too large for model with 131072", "3051"),
    ),
    "groq": (
        "groq/x",
        400,
        openai_error("Please reduce the length of the messages or completion.", "context_length_exceeded"),
    ),
    "groq, code only": ("groq/x", 400, openai_error("The request cannot be served.", "context_length_exceeded")),
    "groq, more than a minute's": (
        "groq/x",
        413,
        openai_error(
            "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 20000",
            "rate_limit_exceeded",
        ),
    ),
    "lm studio": (
        "lm_studio/x",
        400,
        LM_STUDIO,
    ),
    "lm studio, initial prompt": (
        "openai/x",
        400,
        "The number of tokens to keep from the initial prompt is greater than the context length.",
    ),
    "xai": ("xai/x", 400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    "deepseek": (
        "deepseek/x",
        400,
        openai_error(
            "This model's maximum context length is 65536 tokens. However, you requested 70000.",
            "invalid_request_error",
        ),
    ),
    "vllm": ("hosted_vllm/x", 400, openai_error("max_tokens must be at least 1, got -5.", 400, "BadRequestError")),
    "vllm, decoder": (
        "hosted_vllm/x",
        400,
        openai_error("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", 400),
    ),
    "vllm, 500": (
        "hosted_vllm/x",
        500,
        openai_error("The prompt is longer than the maximum model length of 8192.", 500),
    ),
    "sglang": (
        "openai/x",
        400,
        openai_error("The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
    ),
    "llama.cpp": (
        "openai/x",
        400,
        openai_error(
            "the request exceeds the available context size, try increasing it", 400, "exceed_context_size_error"
        ),
    ),
    "llama.cpp, 500": (
        "openai/x",
        500,
        openai_error("the request exceeds the available context size", 500, "server_error"),
    ),
    "ollama": ("openai/x", 400, openai_error("prompt too long; exceeded max context length by 1000 tokens")),
    "ollama, length": ("openai/x", 500, openai_error("the input length exceeds the context length", None, "api_error")),
    "together": (
        "together_ai/x",
        422,
        openai_error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000"),
    ),
    "fireworks": (
        "fireworks_ai/x",
        400,
        openai_error("The prompt is too long: 140000, model maximum context length: 131071"),
    ),
    "cohere": (
        "openai/x",
        400,
        openai_error("too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000."),
    ),
    "moonshot": ("moonshot/x", 400, openai_error("Invalid request: Your request exceeded model token limit: 262144")),
    "minimax": ("openai/x", 400, openai_error("invalid params, context window exceeds limit (2013)")),
    "zhipu": ("openai/x", 400, openai_error("Prompt exceeds max length", "1261")),
    "dashscope": (
        "openai/x",
        400,
        openai_error("Range of input length should be [1, 30720]", "invalid_parameter_error"),
    ),
    "cerebras": ("cerebras/x", 400, openai_error("Please reduce it. Current length is 9000 while limit is 8192", "x")),
    "copilot": (
        "openai/x",
        400,
        openai_error("prompt token count of 130000 exceeds the limit of 128000", "model_max_prompt_tokens_exceeded"),
    ),
    "github": ("openai/x", 413, openai_error("Request body too large for gpt-4o model.", "tokens_limit_reached")),
    "lm studio, size": ("lm_studio/x", 400, "Context size has been exceeded."),
    "cloudflare": (
        "cloudflare/x",
        400,
        openai_error("The number of tokens (9000) exceeded this model context window limit (4096)."),
    ),
    "nvidia": ("nvidia_nim/x", 400, openai_error("Input length 9000 exceeds maximum allowed token size 4096")),
    "tensorrt": (
        "openai/x",
        400,
        openai_error("The sum of prompt length (9000), query length (0) should not exceed max_num_tokens (8192)"),
    ),
    "volcengine": ("openai/x", 400, openai_error("Total tokens of image and text exceed max message tokens.")),
    "in chinese": ("openai/x", 400, openai_error("输入长度超过模型最大上下文长度")),
    "a proxy's 413": ("openai/x", 413, openai_error("Payload Too Large")),
}

OTHER_WORDS = [
    "Prompt length 9000 is greater than max_seq_len 8192",
    "The prompt (total length 9000) is too long to fit into the model (context length 8192).",
    "However, the model's context length is only 8192 tokens, resulting in a maximum input length of 8092 tokens.",
    "Input length (9000 tokens) exceeds the maximum allowed length (8192 tokens).",
    "Requested tokens (9000) exceed context window of 8192",
    "default_max_tokens (-120) must be greater than 0, = max_seq_len (8192) - prompt (9000)",
    "Your request exceeded the model's maximum number of tokens",
    "The conversation is too long for this model",
    "The messages you submitted are too long, please submit something shorter.",
    "Token limit exceeded: 9000 > 8192",
    "Too many tokens in prompt",
    "token数超过上限",
    "输入内容过长",
    "Die Eingabe ist zu lang für das Kontextfenster dieses Modells.",
    "入力がモデルの最大コンテキスト長を超えています。",
]
OTHER_FAULTS = [
    "max_tokens (200000) exceeds the maximum output tokens 16384",
    "Invalid 'tools': array too long. Expected an array with maximum length 128.",
    "Input should be greater than 0",
    "too many stop sequences: the limit is 4",
    "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 7000000 bytes > 5242880 bytes",
    "Invalid value for 'temperature': it must not be greater than 2.",
]


@pytest.mark.parametrize("words", OTHER_WORDS)
def test_a_refusal_says_so_in_words_of_no_known_vendor(server, failure, words):
    server.answer_with(Refusal(status=400, error=openai_error(words)))
    assert told(failure(model="hosted_vllm/x")) == ("context_window_exceeded", False)


@pytest.mark.parametrize("words", OTHER_FAULTS)
def test_a_fault_that_sounds_like_it_is_none(server, failure, words):
    server.answer_with(Refusal(status=400, error=openai_error(words)))
    assert told(failure(model="hosted_vllm/x")) == ("invalid_request", False)


@pytest.mark.parametrize("words", ["每分钟输入tokens数超过限制", "Input tokens per minute exceeded: 30,000"])
def test_too_many_tokens_a_minute_are_no_long_history(server, failure, words):
    server.answer_with(Refusal(status=429, error=openai_error(words)))
    assert told(failure()) == ("rate_limited", True)


@pytest.mark.parametrize(
    "answer",
    [
        Garbage(text=json.dumps({"error": {"message": "No.", "code": "context_length_exceeded"}})),
        Wire(pieces=('data: {"object": "error", "message": "No.", "code": "context_length_exceeded"}\n\n',)),
    ],
)
def test_an_answer_that_is_such_an_error_says_so(server, failure, answer):
    """Its status is 200."""
    server.answer_with(answer)
    assert told(failure()) == ("context_window_exceeded", False)


def told(error):
    """Return kind, whether it is tried again."""
    return (error.kind.value, error.retryable)


@pytest.mark.parametrize("case", SAID)
def test_a_refusal_of_a_history_that_is_too_long_says_so(server, failure, case):
    model, status, error = SAID[case]
    server.answer_with(Refusal(status=status, error=error))
    assert told(failure(model=model)) == ("context_window_exceeded", False)


@pytest.mark.parametrize("case", [case for case in SAID if case != "a proxy's 413"])
def test_the_same_within_a_stream_says_so(server, failure, case):
    model, _, error = SAID[case]
    server.answer_with(Wire(pieces=(*says("One "), f"data: {json.dumps({'error': error})}\n\n")))
    assert told(failure(model=model)) == ("context_window_exceeded", False)


OTHERS = {
    "anthropic": (ANTHROPIC, 400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "anthropic, with the answer": (
        ANTHROPIC,
        400,
        "invalid_request_error",
        "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length",
    ),
    "anthropic, bytes": (ANTHROPIC, 413, "request_too_large", "Request exceeds the maximum size"),
    "gemini": (
        GEMINI,
        400,
        "INVALID_ARGUMENT",
        "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "vertex": (
        GEMINI,
        400,
        "INVALID_ARGUMENT",
        "The input token count is 2000000 but the model only supports up to 1048576.",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_refusal_in_another_format_says_so(server, failure, case):
    dialect, status, kind, message = OTHERS[case]
    server.answer_with(Refusal(status=status, error=dialect.error(kind, message)))
    assert told(failure(model=dialect.model, settings=dialect.settings(server.url))) == (
        "context_window_exceeded",
        False,
    )


BEDROCK = "bedrock/anthropic.claude-3-haiku-20240307-v1:0"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Input is too long for requested model.", "context_window_exceeded"),
        ("Too many input tokens. Max input tokens: 8192, request input token count: 9000", "context_window_exceeded"),
        (
            "Malformed input request: expected maxLength: 50000, actual: 60000, please reformat",
            "context_window_exceeded",
        ),
        ("Too many tokens, please wait before trying again.", "rate_limited"),
        ("Too many requests, please wait before trying again.", "rate_limited"),
    ],
)
def test_bedrock_tells_too_long_from_too_often(server, failure, message, kind):
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none", "aws_region_name": "us-east-1"}
    status = 429 if kind == "rate_limited" else 400
    server.answer_with(Refusal(status=status, error={"message": message}))
    settings = {**keys, "aws_bedrock_runtime_endpoint": server.url, "api_base": None}
    assert failure(model=BEDROCK, settings=settings).kind.value == kind


@pytest.mark.parametrize(
    "error",
    [
        openai_error(
            "max_tokens is too large: 90000. This model supports at most 16384 completion tokens.", "invalid_value"
        ),
        openai_error(
            "Invalid 'user': string too long. Expected a string with maximum length 64.", "string_above_max_length"
        ),
        openai_error("Unsupported parameter: 'temperature'.", "unsupported_parameter"),
    ],
)
def test_another_fault_of_the_request_is_no_long_history(server, failure, error):
    server.answer_with(Refusal(status=400, error=error))
    assert told(failure(model=OPENAI.model)) == ("invalid_request", False)
