//! What operators see: [`start_logging`] and the names of all [metrics](metric).

mod log_lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use log_lines::LogLines;

/// Buckets of all histograms, in seconds: from a delivery on loopback to a client that is lost.
const SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// What is not logged whatever the filter says: `h2` shows the address of a request that it cannot
/// read, in which there may be a ticket.
const QUIET: [&str; 1] = ["h2::server=info"];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Sends log lines to standard error, those that `filter` lets through: a level, or directives such
/// as `info,fantail::relay=debug`. Directives that cannot be read are left out. What panics say goes
/// the same way. Whatever becomes of standard error, nobody who logs waits for it, or ends with it.
pub fn start_logging(filter: &str, format: LogFormat) {
    let mut filter = EnvFilter::new(with_quiet_http2(filter));
    for directive in QUIET {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // It would be told on standard error, in the way that panics.
        .log_internal_errors(false)
        .with_writer(|| LogLines::get().clone());
    // An error means that a subscriber is set already, as tests in one process do.
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(log_panic));
}

/// The library of HTTP/2 warns of each connection that does what only attackers do. Those are
/// [counted](metric::http2_abuse) instead, unless somebody wants to hear of them.
fn with_quiet_http2(filter: &str) -> String {
    let is_asked_for = |directive: &str| {
        let directive = directive.trim().to_ascii_lowercase();
        directive.starts_with("h2") || ["off", "error", "debug", "trace"].contains(&&*directive)
    };
    match filter.split(',').any(is_asked_for) {
        true => filter.to_owned(),
        false => format!("{filter},h2=error"),
    }
}

/// Says something to whoever started the program, as it is, and waits a moment until it was said.
pub fn say(line: &str) {
    let _ = LogLines::get().clone().write_all(format!("{line}\n").as_bytes());
    flush_log();
}

/// Waits until what was logged is written, for half a second at most: before the process ends.
pub fn flush_log() {
    LogLines::get().flush();
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let why = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let why = why.unwrap_or("no text");
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(why, at, thread, %backtrace, "panic");
    } else {
        tracing::error!(why, at, thread, "panic");
    }
}

/// Collects metrics from here on; the handle renders them for `GET /metrics`.
///
/// # Errors
/// When a recorder is installed already.
pub fn start_metrics() -> Result<PrometheusHandle, String> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| error.to_string())?;
    metric::describe();
    Ok(handle)
}

/// Every metric of the gateway. No metric has a label per topic or client: their number is
/// bounded by this file.
pub mod metric {
    use std::collections::HashMap;
    use std::sync::{LazyLock, PoisonError, RwLock};
    use std::time::Duration;

    use metrics::{
        Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge,
        describe_histogram, gauge, histogram,
    };

    use crate::said::ResetReason;

    // Taken from the recorder once: looking a metric up costs more than counting.
    static CONNECTIONS: LazyLock<Gauge> = LazyLock::new(|| gauge!("fantail_connections"));
    static OPENED: LazyLock<Counter> =
        LazyLock::new(|| counter!("fantail_connections_opened_total"));
    static SLOW: LazyLock<Gauge> = LazyLock::new(|| gauge!("fantail_slow_connections"));
    static PARKED: LazyLock<Gauge> = LazyLock::new(|| gauge!("fantail_parked_connections"));
    /// By route, method and status. There are few, and the recorder takes long to find one.
    static REQUESTS: LazyLock<RwLock<RequestCounters>> = LazyLock::new(RwLock::default);
    type RequestCounters = HashMap<(&'static str, &'static str, u16), Counter>;
    static DELIVERIES: LazyLock<Counter> = LazyLock::new(|| counter!("fantail_deliveries_total"));
    static BYTES: LazyLock<Counter> = LazyLock::new(|| counter!("fantail_delivered_bytes_total"));
    static LAG: LazyLock<Histogram> = LazyLock::new(|| histogram!("fantail_delivery_lag_seconds"));
    static PUBLISHED: LazyLock<Counter> =
        LazyLock::new(|| counter!("fantail_events_published_total"));

    pub(super) fn describe() {
        use Unit::{Bytes, Count, Seconds};
        describe_gauge!("fantail_connections", Count, "Open streams on this node");
        describe_counter!("fantail_connections_opened_total", Count, "Streams opened");
        describe_counter!(
            "fantail_connections_closed_total",
            Count,
            "Streams ended, by reason: client, drain, age, expired, revoked, stalled, no_state, fault"
        );
        describe_counter!(
            "fantail_connections_refused_total",
            Count,
            "Streams refused with 503, by reason: full, address (its address has as many as it \
             may), subject, topics (the node follows as many as it may), address_topics, new_topics \
             (too many in a time), requests, draining"
        );
        describe_counter!(
            "fantail_requests_limited_total",
            Count,
            "Requests refused with 429 or 503 because of a limit, by limit: requests (too many \
             in a time by one client), published, bodies (what all of them take together)"
        );
        describe_counter!(
            "fantail_access_refused_total",
            Count,
            "Requests refused for who sent them, by reason: missing (no token), token (not \
             valid), forbidden (it does not grant that), keys (those of its issuer have not \
             come), revoked, unknown (whether it is revoked), ticket (not valid), page (a write \
             with a cookie)"
        );
        describe_counter!(
            "fantail_jwks_fetches_total",
            Count,
            "Attempts to fetch the keys of an issuer, by outcome: ok, failed"
        );
        describe_gauge!(
            "fantail_parked_connections",
            Count,
            "Streams that a reactor carries and that have caught up with their topics"
        );
        describe_gauge!(
            "fantail_slow_connections",
            Count,
            "Streams that are behind: what they say is not taken, or they read from the log"
        );
        describe_gauge!("fantail_topics", Count, "Topics this node follows");
        describe_counter!("fantail_events_published_total", Count, "Events acknowledged here");
        describe_counter!("fantail_deliveries_total", Count, "Entries handed to streams");
        describe_counter!("fantail_delivered_bytes_total", Bytes, "Bytes handed to streams");
        describe_counter!(
            "fantail_encoded_entries_total",
            Count,
            "Entries put into an encoding other than identity, once for all streams, by encoding: gzip, br, zstd"
        );
        describe_counter!(
            "fantail_encoded_bytes_total",
            Bytes,
            "What they took, by size: before, after (and by encoding)"
        );
        describe_histogram!(
            "fantail_delivery_lag_seconds",
            Seconds,
            "From the log taking an entry to a stream handing it to its socket"
        );
        describe_counter!(
            "fantail_replays_total",
            Count,
            "Streams that resumed and had something to catch up with, by source: tail, log"
        );
        describe_counter!("fantail_replay_reads_total", Count, "Reads of the log for replays");
        describe_counter!("fantail_resets_total", Count, "Resets told, by reason");
        describe_counter!(
            "fantail_gaps_total",
            Count,
            "Losses of announcements found, by what found them: announcement, audit"
        );
        describe_counter!(
            "fantail_gap_entries_repaired_total",
            Count,
            "Entries that tails got from the log instead of an announcement"
        );
        describe_gauge!("fantail_redis_up", Count, "1 while subscribed to Redis");
        describe_counter!(
            "fantail_redis_reconnects_total",
            Count,
            "Subscription connections made after the first"
        );
        describe_counter!(
            "fantail_redis_failovers_total",
            Count,
            "Masters that sentinels named after the first"
        );
        describe_histogram!(
            "fantail_redis_command_seconds",
            Seconds,
            "Time of commands to Redis, by command"
        );
        describe_counter!(
            "fantail_redis_errors_total",
            Count,
            "Failed commands to Redis, by kind: unavailable, unanswered"
        );
        describe_gauge!(
            "fantail_budget_bytes",
            Bytes,
            "Read from the log or made for readers, and not taken by all of them yet"
        );
        describe_gauge!(
            "fantail_budget_waiting",
            Count,
            "Reads and answers that wait until others were taken"
        );
        describe_counter!(
            "fantail_accept_errors_total",
            Count,
            "Attempts to accept a connection that failed, mostly for want of descriptors"
        );
        describe_counter!(
            "fantail_sockets_dropped_total",
            Count,
            "Connections closed before their time, by reason: full (a newcomer, while places were \
             short and nobody could go), silent (while places were short, and it had brought no \
             whole request), idle (while places were short, and nothing was under way on it any \
             more), address (its address has as many sockets as it may), proxy_header (a trusted \
             proxy began with a PROXY header that is none)"
        );
        describe_counter!(
            "fantail_tls_handshakes_total",
            Count,
            "Connections that were to speak TLS, by outcome: done, failed (the peer does not, or \
             wants what this node does not offer), late (not within 10 s)"
        );
        describe_counter!(
            "fantail_tls_certificate_changes_total",
            Count,
            "Times that the files of the certificate had changed, by outcome: taken, wrong (the old \
             certificate stays)"
        );
        describe_gauge!(
            "fantail_tls_certificate_expiry_timestamp_seconds",
            Seconds,
            "Until when the certificate that is shown is valid, in seconds since 1970"
        );
        describe_counter!(
            "fantail_http2_connections_ended_total",
            Count,
            "Connections of HTTP/2 ended for what they sent, by reason: frames (too many that carry \
             nothing), calm (what else only attackers do, such as opening streams and resetting \
             them at once)"
        );
        describe_counter!(
            "fantail_request_heads_total",
            Count,
            "First request heads of connections, by outcome: taken (a stream, past the HTTP \
             server), left (to the HTTP server)"
        );
        describe_counter!(
            "fantail_stream_faults_total",
            Count,
            "Panics while streams were served; each ended one stream"
        );
        describe_counter!(
            "fantail_log_lines_dropped_total",
            Count,
            "Log lines that could not be written to standard error, or found no room to wait"
        );
        describe_counter!(
            "fantail_background_restarts_total",
            Count,
            "Tasks of the node itself that ended by a panic and were begun again, by task"
        );
        describe_gauge!("fantail_revocations", Count, "Revocations that this node knows of");
        describe_counter!(
            "fantail_tickets_total",
            Count,
            "Tickets, by outcome: issued, refused (to be issued), used, worthless"
        );
        describe_gauge!("fantail_ready", Count, "2 ready, 1 degraded, 0 not ready");
        describe_gauge!("fantail_canary_age_seconds", Seconds, "Since the canary was last heard");
        describe_counter!(
            "fantail_requests_total",
            Count,
            "Requests answered, by route, method and status"
        );
        // Shown from the start, at zero: a missing series and a quiet one look different.
        for gauge in [&CONNECTIONS, &SLOW, &PARKED] {
            gauge.set(0.0);
        }
        for counter in [&OPENED, &DELIVERIES, &BYTES, &PUBLISHED] {
            counter.increment(0);
        }
        for reason in
            [ResetReason::Trimmed, ResetReason::Deleted, ResetReason::Lost, ResetReason::Unreadable]
        {
            counter!("fantail_resets_total", "reason" => reason.as_str()).increment(0);
        }
        for source in ["tail", "log"] {
            counter!("fantail_replays_total", "source" => source).increment(0);
        }
        for found_by in ["announcement", "audit"] {
            counter!("fantail_gaps_total", "found_by" => found_by).increment(0);
        }
        counter!("fantail_gap_entries_repaired_total").increment(0);
        counter!("fantail_replay_reads_total").increment(0);
        for outcome in ["taken", "left"] {
            counter!("fantail_request_heads_total", "outcome" => outcome).increment(0);
        }
        gauge!("fantail_budget_waiting").set(0.0);
        counter!("fantail_accept_errors_total").increment(0);
        for outcome in ["done", "failed", "late"] {
            counter!("fantail_tls_handshakes_total", "outcome" => outcome).increment(0);
        }
        for outcome in ["taken", "wrong"] {
            counter!("fantail_tls_certificate_changes_total", "outcome" => outcome).increment(0);
        }
        for reason in ["frames", "calm"] {
            counter!("fantail_http2_connections_ended_total", "reason" => reason).increment(0);
        }
        for reason in ["full", "silent", "idle", "address", "proxy_header"] {
            counter!("fantail_sockets_dropped_total", "reason" => reason).increment(0);
        }
        for outcome in ["ok", "failed"] {
            counter!("fantail_jwks_fetches_total", "outcome" => outcome).increment(0);
        }
        for reason in
            ["missing", "token", "forbidden", "keys", "revoked", "unknown", "ticket", "page"]
        {
            counter!("fantail_access_refused_total", "reason" => reason).increment(0);
        }
        for reason in [
            "full",
            "address",
            "subject",
            "topics",
            "address_topics",
            "new_topics",
            "requests",
            "draining",
        ] {
            counter!("fantail_connections_refused_total", "reason" => reason).increment(0);
        }
        for limit in ["requests", "published", "bodies"] {
            counter!("fantail_requests_limited_total", "limit" => limit).increment(0);
        }
        counter!("fantail_stream_faults_total").increment(0);
        counter!("fantail_log_lines_dropped_total").increment(0);
    }

    /// Must log nothing.
    pub(super) fn log_line_dropped() {
        counter!("fantail_log_lines_dropped_total").increment(1);
    }

    pub(crate) fn background_restarted(task: &'static str) {
        counter!("fantail_background_restarts_total", "task" => task).increment(1);
    }

    /// Somebody began or ended to wait for the budget.
    pub(crate) fn budget_waiting(change: f64) {
        gauge!("fantail_budget_waiting").increment(change);
    }

    pub(crate) fn budget_held(bytes: usize) {
        gauge!("fantail_budget_bytes").set(bytes as f64);
    }

    pub(crate) fn accept_failed() {
        counter!("fantail_accept_errors_total").increment(1);
    }

    pub(crate) fn socket_dropped(reason: &'static str) {
        counter!("fantail_sockets_dropped_total", "reason" => reason).increment(1);
    }

    /// A connection with TLS: done, failed, or late.
    pub(crate) fn tls_handshake(outcome: &'static str) {
        counter!("fantail_tls_handshakes_total", "outcome" => outcome).increment(1);
    }

    /// A certificate's files have changed: taken, or wrong.
    pub(crate) fn certificate_looked_at(outcome: &'static str) {
        counter!("fantail_tls_certificate_changes_total", "outcome" => outcome).increment(1);
    }

    /// Until when the certificate that is shown is valid.
    pub(crate) fn certificate_expires(unix_seconds: Option<u64>) {
        let seconds = unix_seconds.map_or(f64::INFINITY, |seconds| seconds as f64);
        gauge!("fantail_tls_certificate_expiry_timestamp_seconds").set(seconds);
    }

    /// A connection of HTTP/2 was ended for what it sent.
    pub(crate) fn http2_abuse(reason: &'static str) {
        counter!("fantail_http2_connections_ended_total", "reason" => reason).increment(1);
    }

    /// What became of the first request head of a connection: taken past the HTTP server, or left
    /// to it.
    pub(crate) fn head_sniffed(outcome: &'static str) {
        counter!("fantail_request_heads_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn stream_fault() {
        counter!("fantail_stream_faults_total").increment(1);
    }

    pub(crate) fn connection_opened() {
        OPENED.increment(1);
        CONNECTIONS.increment(1.0);
    }

    pub(crate) fn connection_closed(reason: &'static str) {
        CONNECTIONS.decrement(1.0);
        counter!("fantail_connections_closed_total", "reason" => reason).increment(1);
    }

    pub(crate) fn connection_refused(reason: &'static str) {
        counter!("fantail_connections_refused_total", "reason" => reason).increment(1);
    }

    /// A request was refused because of a limit, other than to open a stream.
    pub(crate) fn request_limited(limit: &'static str) {
        counter!("fantail_requests_limited_total", "limit" => limit).increment(1);
    }

    /// The keys of an issuer were asked for, and came or not.
    pub(crate) fn keys_fetched(outcome: &'static str) {
        counter!("fantail_jwks_fetches_total", "outcome" => outcome).increment(1);
    }

    /// Somebody was refused for who they are.
    pub(crate) fn access_refused(reason: &'static str) {
        counter!("fantail_access_refused_total", "reason" => reason).increment(1);
    }

    pub(crate) fn slow_connections(change: f64) {
        SLOW.increment(change);
    }

    pub(crate) fn parked_connections(change: f64) {
        PARKED.increment(change);
    }

    pub(crate) fn topics(count: usize) {
        gauge!("fantail_topics").set(count as f64);
    }

    pub(crate) fn published(events: u64) {
        PUBLISHED.increment(events);
    }

    pub(crate) fn delivered(entries: usize, bytes: usize) {
        DELIVERIES.increment(entries as u64);
        BYTES.increment(bytes as u64);
    }

    /// An entry was put into an encoding, to be shared by all streams of it.
    pub(crate) fn entry_encoded(encoding: &'static str, before: usize, after: usize) {
        counter!("fantail_encoded_entries_total", "encoding" => encoding).increment(1);
        for (size, bytes) in [("before", before), ("after", after)] {
            counter!("fantail_encoded_bytes_total", "encoding" => encoding, "size" => size)
                .increment(bytes as u64);
        }
    }

    pub(crate) fn delivery_lag(lag: Duration) {
        LAG.record(lag.as_secs_f64());
    }

    /// The same lag for several handouts.
    pub(crate) fn delivery_lags(lag: Duration, handouts: usize) {
        LAG.record_many(lag.as_secs_f64(), handouts);
    }

    pub(crate) fn replay(source: &'static str) {
        counter!("fantail_replays_total", "source" => source).increment(1);
    }

    pub(crate) fn replay_read() {
        counter!("fantail_replay_reads_total").increment(1);
    }

    pub(crate) fn reset(reason: ResetReason) {
        counter!("fantail_resets_total", "reason" => reason.as_str()).increment(1);
    }

    pub(crate) fn gap_found() {
        counter!("fantail_gaps_total", "found_by" => "announcement").increment(1);
    }

    pub(crate) fn audit_found() {
        counter!("fantail_gaps_total", "found_by" => "audit").increment(1);
    }

    pub(crate) fn repaired(entries: usize) {
        counter!("fantail_gap_entries_repaired_total").increment(entries as u64);
    }

    pub(crate) fn redis_up(up: bool) {
        gauge!("fantail_redis_up").set(if up { 1.0 } else { 0.0 });
    }

    pub(crate) fn redis_reconnected() {
        counter!("fantail_redis_reconnects_total").increment(1);
    }

    pub(crate) fn redis_failed_over() {
        counter!("fantail_redis_failovers_total").increment(1);
    }

    pub(crate) fn redis_command(command: &'static str, took: Duration) {
        histogram!("fantail_redis_command_seconds", "command" => command)
            .record(took.as_secs_f64());
    }

    pub(crate) fn redis_error(kind: &'static str) {
        counter!("fantail_redis_errors_total", "kind" => kind).increment(1);
    }

    pub(crate) fn revocations(count: usize) {
        gauge!("fantail_revocations").set(count as f64);
    }

    pub(crate) fn ticket(outcome: &'static str) {
        counter!("fantail_tickets_total", "outcome" => outcome).increment(1);
    }

    pub(crate) fn ready(level: f64, canary_age_seconds: f64) {
        gauge!("fantail_ready").set(level);
        gauge!("fantail_canary_age_seconds").set(canary_age_seconds);
    }

    pub(crate) fn request(route: &'static str, method: &'static str, status: u16) {
        let key = (route, method, status);
        let known = REQUESTS.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let counter = known.unwrap_or_else(|| {
            let counter = counter!(
                "fantail_requests_total",
                "route" => route, "method" => method, "status" => status.to_string()
            );
            let mut known = REQUESTS.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(key, counter.clone());
            counter
        });
        counter.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_http2_warns_of_is_only_heard_by_those_who_ask_for_it() {
        for (filter, all) in [
            ("info", "info,h2=error"),
            ("warn,fantail::relay=debug", "warn,fantail::relay=debug,h2=error"),
            ("info,h2=warn", "info,h2=warn"),
            ("info, h2::proto=debug", "info, h2::proto=debug"),
            ("DEBUG", "DEBUG"),
            ("off", "off"),
        ] {
            assert_eq!(with_quiet_http2(filter), all);
        }
    }
}
