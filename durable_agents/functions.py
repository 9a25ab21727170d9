"""The functions of the public API and their async versions. ``durable_agents/__init__.py`` exports them lazily.

To add a function, import it here, make its async version, and add its name in ``durable_agents/__init__.py``.
"""

from __future__ import annotations

from durable_agents.async_versions import async_version
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
from durable_agents.lifecycle import update_thread as update_thread
from durable_agents.reading import astream_thread as astream_thread
from durable_agents.reading import await_for_thread as await_for_thread
from durable_agents.reading import export_thread as export_thread
from durable_agents.reading import list_messages as list_messages
from durable_agents.reading import list_messages_with_streams as list_messages_with_streams
from durable_agents.reading import list_threads as list_threads
from durable_agents.reading import stream_thread as stream_thread
from durable_agents.reading import wait_for_thread as wait_for_thread
from durable_agents.transcript import get_thread as get_thread

aadd_message = async_version(add_message)
aadd_tool_error = async_version(add_tool_error)
aadd_tool_result = async_version(add_tool_result)
aapprove_tool_call = async_version(approve_tool_call)
acreate_thread = async_version(create_thread)
adelete_thread = async_version(delete_thread)
aedit_message = async_version(edit_message)
aerase = async_version(erase)
aexport_thread = async_version(export_thread)
afork_thread = async_version(fork_thread)
aget_thread = async_version(get_thread)
alist_messages = async_version(list_messages)
alist_messages_with_streams = async_version(list_messages_with_streams)
alist_threads = async_version(list_threads)
aregenerate = async_version(regenerate)
areject_tool_call = async_version(reject_tool_call)
aresume_thread = async_version(resume_thread)
asend_message = async_version(send_message)
aset_tool_call_timeout = async_version(set_tool_call_timeout)
asettle_tool_call = async_version(settle_tool_call)
astop_thread = async_version(stop_thread)
aupdate_thread = async_version(update_thread)
