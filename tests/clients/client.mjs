// Client libraries for JavaScript, each used as its own documentation says; see main.rs for what
// they are asked to do: node client.mjs LIBRARY URL,URL,…

const [library, urls] = process.argv.slice(2);

function say(instance, { lastEventId, id, data }) {
  process.stdout.write(`${JSON.stringify({ instance, id: id ?? lastEventId ?? '', data })}\n`);
}

/** Everything with the interface of EventSource comes back by itself. */
function follow(source, instance) {
  source.onmessage = (event) => say(instance, event);
  source.onerror = () => {};
}

const libraries = {
  async eventsource() {
    const { EventSource } = await import('eventsource');
    return (url, instance) => follow(new EventSource(url), instance);
  },

  async 'eventsource-2'() {
    const { default: EventSource } = await import('eventsource-2');
    return (url, instance) => follow(new EventSource(url), instance);
  },

  async 'event-source-polyfill'() {
    const { EventSourcePolyfill } = (await import('event-source-polyfill')).default;
    return (url, instance) => follow(new EventSourcePolyfill(url), instance);
  },

  async 'reconnecting-eventsource'() {
    const { EventSource } = await import('eventsource');
    const { default: Reconnecting } = await import('reconnecting-eventsource');
    const configuration = { eventSourceClass: EventSource, max_retry_time: 20 };
    return (url, instance) => follow(new Reconnecting(url, configuration), instance);
  },

  async 'eventsource-client'() {
    const { createEventSource } = await import('eventsource-client');
    return (url, instance) => createEventSource({ url, onMessage: (event) => say(instance, event) });
  },

  // Made for browsers: it wants a window. Without a throwing `onclose` it takes the clean end of a
  // response for the end of the stream.
  async 'fetch-event-source'() {
    globalThis.window = globalThis;
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await import('@microsoft/fetch-event-source');
    return (url, instance) => fetchEventSource(url, {
      cache: 'no-store',
      openWhenHidden: true,
      onmessage: (event) => say(instance, event),
      onclose() { throw new Error('closed'); },
      onerror() {},
    });
  },
};

const open = await libraries[library]();
urls.split(',').forEach((url, instance) => open(url, instance));
setInterval(() => {}, 1_000_000);
