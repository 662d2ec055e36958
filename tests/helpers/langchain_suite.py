"""LangChain's tests of chat models against a server; tests/rsa/serve/test_langchain_suite.py runs them, in a process.

What does not apply: structured output and JSON mode, for nothing here holds a model to a schema; audio, PDFs, and
Anthropic's forms of messages. Of images it wants one from the network.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests


class OurServer:
    """What both suites are told of it. `name`: of what is asked."""

    name = os.environ["MODEL"]

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        server = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": "none"}
        return {"model": self.name, **server, "stream_usage": True}

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return self.name


class TestUnits(OurServer, ChatModelUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        env = {"OPENAI_API_KEY": "a key", "OPENAI_API_BASE": os.environ["OPENAI_BASE_URL"]}
        return env, {"model": self.name}, {"openai_api_base": os.environ["OPENAI_BASE_URL"]}

    @pytest.mark.xfail(reason="there is no snapshot of ChatOpenAI here to compare it with")
    def test_serdes(self, model: BaseChatModel, snapshot: Any) -> None:
        super().test_serdes(model, snapshot)


class TestModel(OurServer, ChatModelIntegrationTests):
    """All of it that is not skipped by what `OurServer` says."""


class TestRuns(OurServer, ChatModelIntegrationTests):
    """The same, of runs on the model."""

    name = f"{os.environ['MODEL']}:rsa"
