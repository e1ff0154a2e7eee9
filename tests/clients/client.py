"""Client libraries for Python, each used as its own documentation says; see main.rs for what they
are asked to do: python3 client.py LIBRARY URL,URL,…"""

import asyncio
import importlib
import json
import sys
import threading
import time
from datetime import timedelta

PAUSE = 0.02


def say(instance, event_id, data):
    line = json.dumps({"instance": instance, "id": event_id or "", "data": data})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def resuming(last):
    return {"Last-Event-ID": last} if last else {}


def sseclient_py(url, instance):
    """It reads one response; coming back is up to who uses it."""
    import requests
    import sseclient

    last = ""
    while True:
        try:
            headers = {"Accept": "text/event-stream", **resuming(last)}
            response = requests.get(url, stream=True, headers=headers, timeout=60)
            for event in sseclient.SSEClient(response).events():
                last = event.id or last
                say(instance, event.id, event.data)
        except requests.RequestException:
            pass
        time.sleep(PAUSE)


def sseclient(url, instance):
    import sseclient

    # It prints why it reconnects.
    sseclient.print = lambda *words: None
    for event in sseclient.SSEClient(url, retry=20):
        say(instance, event.id, event.data)


def requests_sse(url, instance):
    import requests
    from requests_sse import EventSource

    pause = timedelta(seconds=PAUSE)
    with EventSource(url, reconnection_time=pause, max_connect_retry=10, timeout=60) as source:
        for event in source:
            say(instance, event.last_event_id, event.data)


def httpx_sse(url, instance):
    """It reads one response. An event without an id has the empty one: hence `if event.id`."""
    import httpx
    from httpx_sse import connect_sse

    last = ""
    while True:
        try:
            with httpx.Client(timeout=httpx.Timeout(60)) as client:
                with connect_sse(client, "GET", url, headers=resuming(last)) as source:
                    for event in source.iter_sse():
                        if event.id:
                            last = event.id
                        say(instance, event.id, event.data)
        except httpx.TransportError:
            pass
        time.sleep(PAUSE)


async def aiohttp_client(EventSource, url, instance):
    """It comes back from clean ends alone; a connection that is cut raises."""
    import aiohttp

    last = ""
    while True:
        try:
            headers = resuming(last)
            pause = timedelta(seconds=PAUSE)
            async with EventSource(url, headers=headers, reconnection_time=pause) as source:
                async for event in source:
                    last = event.last_event_id or last
                    say(instance, event.last_event_id, event.data)
        except (aiohttp.ClientError, ConnectionError):
            pass
        await asyncio.sleep(PAUSE)


async def aiohttp_all(module, urls):
    source = importlib.import_module(f"{module}.client").EventSource
    await asyncio.gather(*(aiohttp_client(source, url, n) for n, url in enumerate(urls)))


def main():
    library, urls = sys.argv[1], sys.argv[2].split(",")
    if library.startswith("aiohttp"):
        asyncio.run(aiohttp_all(library.replace("-", "_"), urls))
        return
    follow = {
        "sseclient-py": sseclient_py,
        "sseclient": sseclient,
        "requests-sse": requests_sse,
        "httpx-sse": httpx_sse,
    }[library]
    threads = [threading.Thread(target=follow, args=(url, n)) for n, url in enumerate(urls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
