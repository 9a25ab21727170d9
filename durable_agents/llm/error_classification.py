"""Recognise errors that report a history that is too long, an exhausted balance, or a rate limit.

The HTTP status alone is not enough. Status 429 can mean a short wait or an exhausted balance. A history that is too
long is reported with 400, 413, 422, 429 or 500, or within the answer. The codes come from the providers' documentation.
The texts are for errors without a code.
"""

from __future__ import annotations

import re

CONTEXT_CODES = frozenset(
    {
        # Sent by OpenAI, Azure, Groq, Cerebras, xAI: platform.openai.com/docs/guides/error-codes
        "context_length_exceeded",
        "exceed_context_size_error",  # sent by llama.cpp: tools/server/README.md
        "model_max_prompt_tokens_exceeded",  # GitHub Copilot
        "model_context_window_exceeded",  # Anthropic: docs.anthropic.com, handling stop reasons
        "request_too_large",  # Anthropic, 413: docs.anthropic.com/en/api/errors
        "context_window_exceeded",
        "prompt_too_long",
        "invalid_request_prompt_too_long",
        "3051",  # sent by Mistral
        "1261",  # Zhipu: docs.bigmodel.cn/cn/faq/api-code
        "tokens_limit_reached",  # GitHub Models, 413
    }
)
_CONTEXT_TEXTS = (
    r"maximum context (?:length|limit|size)",  # sent by OpenAI, OpenRouter, DeepSeek, vLLM, Together, Ollama
    r"exceeds? the (?:model'?s )?context (?:window|length)",  # GPT-5, Responses API
    r"context[_ ](?:window|length) (?:is |has been |was )?exceed",
    r"context[_ ]length[_ ]exceeded",
    r"context window (?:size )?exceeds",  # sent by MiniMax
    r"exceeds? (?:the )?context limit",  # Anthropic: input length and `max_tokens` exceed context limit
    r"input tokens exceed the configured limit",  # OpenAI, GPT-5
    r"request too large for",  # OpenAI, Groq: one request exceeds the limit of tokens per minute
    r"(?:prompt|input) (?:is )?too long",  # Anthropic, Bedrock, Fireworks, Ollama
    r"too large for model with \d+",  # Mistral
    r"reduce the length of the (?:messages|prompt|input)",  # Groq, OpenAI
    r"maximum (?:prompt|input) length is",  # xAI, SambaNova
    r"prompt token count .{0,40}exceeds the limit",  # GitHub Copilot
    r"input token count .{0,40}(?:exceeds|only supports)",  # Gemini, Vertex AI
    r"context the overflows|context overflow|overflows? the context",  # LM Studio (it sends this wrong word order)
    r"context length of only \d+",  # LM Studio
    # Sent by LM Studio, SGLang and vLLM:
    r"(?:greater|longer|larger) than the (?:model'?s |maximum )?(?:context|model) ?(?:length|window|size)",
    r"exceeds? (?:the )?(?:available|configured) context size",  # llama.cpp
    r"max_tokens must be at least 1, got -\d",  # vLLM: the prompt leaves no tokens for the answer
    r"`inputs` tokens \+ `max_new_tokens` must be|`inputs` must have less than",  # TGI, Together
    r"exceeded max context length|exceeds maximum context length",  # Ollama
    r"too many tokens: .{0,60}(?:exceed|limit)",  # Cohere
    r"(?:number of )?input tokens .{0,40}(?:cannot exceed|exceeds maximum|longer than)",  # watsonx, Bedrock
    r"too many input tokens|expected maxLength: \d+, actual: \d+",  # Bedrock (Titan)
    r"exceeded model token limit",  # Moonshot
    r"prompt exceeds max length",  # Zhipu
    r"range of input length should be",  # DashScope
    r"current length is \d+ while limit is \d+",  # Cerebras
    r"context (?:size|length|window) (?:is |has been |was )?exceeded",  # LM Studio
    r"exceeded this model context window limit",  # Cloudflare
    r"exceed max message tokens",  # Volcengine
    r"exceeds? maximum allowed token size",  # NVIDIA
    r"(?:should not|must not|cannot) exceed max_(?:num_tokens|seq_len|input_len)",  # TensorRT-LLM
    r"上下文.{0,12}(?:超长|过长|超过|超出|超限)|(?:超过|超出).{0,16}(?:上下文|最大长度|输入长度)",
)
CONTEXT_TEXTS = re.compile("|".join(_CONTEXT_TEXTS), re.IGNORECASE)

_TOO_MUCH = r"(?:exceed|too (?:long|large|many|big)|(?:longer|greater|larger|more) than|overflow|超|过长|過長)"
_GAP = r"(?:(?!should be|output|completion|image|file|tool|string|byte|character)[^.:;\n]){0,60}?"
_SUSPECTED_CONTEXT_TEXTS = (
    rf"\b(?:prompt|input|conversation|messages?|history|context|request (?:body )?(?:is|was)?)\b{_GAP}{_TOO_MUCH}",
    rf"(?<!output )(?<!completion )(?<!new )\btokens?\b{_GAP}{_TOO_MUCH}|too many tokens",
    r"request body too large|tokens of context|negative max_tokens|max input characters",
    r"(?:n_ctx|max_seq_len|max_model_len|max_input_len|context (?:length|window|size)) (?:is |of |exceed|\(|=)",
    r"tokens? ?数量?.{0,6}超|输入.{0,6}过长|上下文|输入.{0,6}长度|提示词",
    r"コンテキスト|컨텍스트|kontext(?:fenster|länge|größe)|contexte|contexto|контекст",
)
SUSPECTED_CONTEXT_TEXTS = re.compile("|".join(_SUSPECTED_CONTEXT_TEXTS), re.IGNORECASE)
"""Texts that suggest that the history is too long. They are used only if the server refused the request as invalid.
Errors for rate limits and temporary failures can contain the same texts.
"""

CREDIT_CODES = frozenset(
    {
        "insufficient_quota",  # sent by OpenAI, 429: platform.openai.com/docs/guides/error-codes
        "billing_hard_limit_reached",  # OpenAI
        "billing_not_active",  # OpenAI
        "billing_error",  # Anthropic, 402: docs.anthropic.com/en/api/errors
        "exceeded_current_quota_error",  # Moonshot, 429: platform.moonshot.ai/docs/api/chat
        "insufficient_balance",
        "insufficient_credits",
        "insufficient_funds",
        "insufficient_user_quota",  # sent by one-api and its forks
        "payment_required",
        "spend_limit_exceeded",
        "arrearage",  # sent by DashScope, 400: help.aliyun.com, error codes of Model Studio
        "billing_disabled",  # Google Cloud, 403
        "1113",  # Zhipu, 429: docs.bigmodel.cn/cn/faq/api-code
        "accountoverdueerror",  # Volcengine, 403
        "allocationquota.freetieronly",  # DashScope, 403
    }
)
_CREDIT_TEXTS = (
    r"credit balance is too low",  # sent by Anthropic, 400
    r"reached your specified (?:workspace )?api usage limits",  # Anthropic, 400
    r"insufficient (?:account )?(?:balance|credits?|funds)",  # DeepSeek, OpenRouter, Zhipu, MiniMax
    r"requires more credits|can only afford",  # OpenRouter, 402
    r"(?:used all|run out of|does(?:n't| not) have any|no) (?:available |remaining )?credits",  # xAI
    r"(?:reached|exceeded) (?:its|your|the) (?:monthly )?(?:included credits|spend(?:ing)? limit)",  # xAI
    r"credit limit exceeded",  # Together, 402
    r"monthly spending limit",  # Fireworks, 412
    r"billing hard limit has been reached",  # OpenAI, 400
    r"account is not active, please check your billing",  # OpenAI, 429
    r"prepayment credits are depleted|exceeded its monthly spending cap",  # Google, 429
    r"balance is (?:insufficient|not enough)|overdue balance",  # SiliconFlow; DeepInfra; Volcengine
    r"余额不足|餘額不足|已?欠费|欠費|残高(?:が)?不足|잔액.{0,3}부족|недостаточно средств",  # Zhipu and others
)
CREDIT_TEXTS = re.compile("|".join(_CREDIT_TEXTS), re.IGNORECASE)

SUSPECTED_CREDIT_TEXTS = re.compile(
    r"\bbalance\b|overdue|arrears|prepa(?:id|yment)|spend(?:ing)? (?:limit|cap)|free (?:tier|quota).{0,40}exhaust"
    r"|out of credit|credit limit|key limit exceeded|billing to be enabled|enable billing",
    re.IGNORECASE,
)
"""Words that suggest an exhausted balance. They are used only for errors that would not be retried anyway, such as
those with status 400, 401 or 403. OpenRouter calls its spending limit "key limit".
"""

POLICY_CODES = frozenset({"content_policy_violation"})  # sent by OpenAI, Azure
POLICY_TEXTS = re.compile(
    r"rejected as a result of (?:our|the) safety system"  # sent by OpenAI
    r"|content management policy"  # Azure
    r"|blocked by content filtering policy",  # Anthropic
    re.IGNORECASE,
)

RATE_CODES = frozenset(
    {
        "rate_limit_exceeded",  # sent by OpenAI, Groq
        "rate_limit_error",  # Anthropic
        "resource_exhausted",  # Google
        "rate_limit_reached_error",  # Moonshot
        "ratelimitreached",  # GitHub Models
        "request_limit_exceeded",  # Databricks
        "throttlingexception",  # Bedrock, 429
        "too_many_requests",
        "toomanyrequests",
    }
)
RATE_TEXTS = re.compile(r"too many (?:tokens|requests), please wait", re.IGNORECASE)
"""Matches Bedrock's error for too many tokens per minute. litellm mistakes this error for a history that is too long.
"""
SUSPECTED_RATE_TEXTS = re.compile(
    r"rate[- _]?limit|too many requests|(?:request|qps|rpm|tpm) limit reached|throttl|速率限制|限流|并发",
    re.IGNORECASE,
)
"""Words that suggest a rate limit. They are used only for an error within an answer. Such an error has no HTTP status
of its own, because the HTTP response began with status 200.
"""
