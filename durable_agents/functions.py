"""The functions of the public API, each with its twin for coroutines; ``durable_agents`` exports them lazily.

One more function is three lines: its import and its twin here, its name in ``durable_agents/__init__.py``.
"""

from __future__ import annotations

from durable_agents.lifecycle import add_message as add_message
from durable_agents.lifecycle import add_tool_error as add_tool_error
from durable_agents.lifecycle import add_tool_result as add_tool_result
from durable_agents.lifecycle import approve_tool_call as approve_tool_call
from durable_agents.lifecycle import create_thread as create_thread
from durable_agents.lifecycle import delete_thread as delete_thread
from durable_agents.lifecycle import edit_message as edit_message
from durable_agents.lifecycle import erase as erase
from durable_agents.lifecycle import fork_thread as fork_thread
from durable_agents.lifecycle import regenerate as regenerate
from durable_agents.lifecycle import reject_tool_call as reject_tool_call
from durable_agents.lifecycle import resume_thread as resume_thread
from durable_agents.lifecycle import send_message as send_message
from durable_agents.lifecycle import set_tool_call_timeout as set_tool_call_timeout
from durable_agents.lifecycle import settle_tool_call as settle_tool_call
from durable_agents.lifecycle import stop_thread as stop_thread
from durable_agents.reading import astream_thread as astream_thread
from durable_agents.reading import await_for_thread as await_for_thread
from durable_agents.reading import export_thread as export_thread
from durable_agents.reading import list_messages as list_messages
from durable_agents.reading import list_messages_with_streams as list_messages_with_streams
from durable_agents.reading import list_threads as list_threads
from durable_agents.reading import stream_thread as stream_thread
from durable_agents.reading import wait_for_thread as wait_for_thread
from durable_agents.transcript import get_thread as get_thread
from durable_agents.twins import twin

aadd_message = twin(add_message)
aadd_tool_error = twin(add_tool_error)
aadd_tool_result = twin(add_tool_result)
aapprove_tool_call = twin(approve_tool_call)
acreate_thread = twin(create_thread)
adelete_thread = twin(delete_thread)
aedit_message = twin(edit_message)
aerase = twin(erase)
aexport_thread = twin(export_thread)
afork_thread = twin(fork_thread)
aget_thread = twin(get_thread)
alist_messages = twin(list_messages)
alist_messages_with_streams = twin(list_messages_with_streams)
alist_threads = twin(list_threads)
aregenerate = twin(regenerate)
areject_tool_call = twin(reject_tool_call)
aresume_thread = twin(resume_thread)
asend_message = twin(send_message)
aset_tool_call_timeout = twin(set_tool_call_timeout)
asettle_tool_call = twin(settle_tool_call)
astop_thread = twin(stop_thread)
