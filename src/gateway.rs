//! [`Gateway`]: puts the rooms together; start and drain, in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{oneshot, watch};

use crate::access::jwks::KeyServer;
use crate::access::revocations::{Revocable, Revocations};
use crate::access::tickets::Tickets;
use crate::access::{Access, Grant};
use crate::address::TrustedProxies;
use crate::admission::client_rates::ClientRates;
use crate::admission::{Admission, StreamLimits};
use crate::background::{Background, Ending};
use crate::board::{Boards, keep_first_board};
use crate::budget::{BUDGET_BYTES_MAX, Budget};
use crate::canary::Canary;
use crate::config::{Coding, Config, WithoutToken};
use crate::http::{Api, App, Cookies, Histories, OperatorsAnswers, Shared};
use crate::hub::Hub;
use crate::log::memory::MemoryLog;
use crate::log::redis::RedisLog;
use crate::log::{
    Catalogue, Health, Log, Notifications, Probe, Registry, Retention, RevocationStore, TicketStore,
};
use crate::net::fetch::KeysAt;
use crate::net::listener::Listener;
use crate::net::reactor::Reactors;
use crate::net::tls::Tls;
use crate::net::{Entrance, Limits, server};
use crate::relay::Relay;
use crate::replay::Replays;
use crate::said::EndReason;
use crate::stats::ClusterStats;
use crate::stream::terms::Holder;
use crate::stream::{EndOrder, Endings, Node, Terms};
use crate::wire::Encoding;

/// File descriptors kept back for Redis, files and accepting.
const DESCRIPTORS_RESERVED: usize = 64;

/// Sockets at the operators' door: some who scrape, some who probe, and somebody who looks.
const OPERATORS_SOCKETS_MAX: usize = 64;

/// How long such a peer may take no bytes.
const OPERATORS_WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// After the drain window, the time in which the last bytes may still leave.
const LAST_BYTES: Duration = Duration::from_secs(3);

/// A running node.
pub struct Gateway {
    address: SocketAddr,
    /// Where the operators' door is, if there is one.
    admin_address: Option<SocketAddr>,
    node: Arc<Node>,
    stats: Arc<ClusterStats>,
    admission: Arc<Admission>,
    stop_accepting: watch::Sender<bool>,
    /// Never told to stop: operators want to see a drain to its end.
    _operators: watch::Sender<bool>,
    server_ended: oneshot::Receiver<()>,
    /// Accepting, relay, canary, stats, the first board, upkeep: ended with the gateway.
    background: Background,
}

/// One backend, as those see it who need a part of it, and where its log is heard.
struct Backend {
    log: Arc<dyn Log>,
    boards: Arc<dyn Boards>,
    catalogue: Arc<dyn Catalogue>,
    registry: Arc<dyn Registry>,
    revocations: Arc<dyn RevocationStore>,
    tickets: Arc<dyn TicketStore>,
    probe: Arc<dyn Probe>,
    notifications: Notifications,
}

impl Backend {
    fn of<B: Log + Boards + Catalogue + Registry + RevocationStore + TicketStore + Probe>(
        backend: Arc<B>,
        notifications: Notifications,
    ) -> Backend {
        Backend {
            log: backend.clone(),
            boards: backend.clone(),
            catalogue: backend.clone(),
            registry: backend.clone(),
            revocations: backend.clone(),
            tickets: backend.clone(),
            probe: backend,
            notifications,
        }
    }
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Streams that were open when it began.
    pub streams: usize,
    /// Streams that had not ended when the time was up.
    pub cut: usize,
}

impl Gateway {
    /// Starts a node: it listens when this returns, whether or not Redis can be reached.
    /// `descriptors_max` is the limit of open file descriptors of the process.
    ///
    /// # Errors
    /// When an address cannot be listened on, or a setting names what is not there: which, and why.
    pub async fn start(
        config: &Config,
        descriptors_max: usize,
        metrics: Option<PrometheusHandle>,
    ) -> std::io::Result<Gateway> {
        let anonymous = match config.without_token() {
            WithoutToken::Nothing => None,
            WithoutToken::Read => Some(Grant::read_only()),
            WithoutToken::Use => Some(Grant::everything().without_administration()),
            WithoutToken::Everything => Some(Grant::everything()),
        };
        let key_servers = |url: &str| -> Arc<dyn KeyServer> { Arc::new(KeysAt::new(url)) };
        let access = Access::new(&config.issuers(), anonymous, &key_servers);
        let access = Arc::new(access.map_err(std::io::Error::other)?);
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(certificate), Some(key)) => {
                let tls = Tls::new(certificate.clone(), key.clone());
                Some(tls.map_err(std::io::Error::other)?)
            }
            _ => None,
        };
        let listener = listen("--listen (FANTAIL_LISTEN)", config.listen, config.write_timeout)?;
        let address = listener.address();
        let operators_listener = config.admin_listen.map(|address| {
            listen("--admin-listen (FANTAIL_ADMIN_LISTEN)", address, OPERATORS_WRITE_TIMEOUT)
        });
        let operators_listener = operators_listener.transpose()?;
        let admin_address = operators_listener.as_ref().map(Listener::address);
        let retention = Retention {
            history_entries_max: config.history_size,
            history_bytes_max: config.limits.history_bytes,
            history_ttl: config.history_ttl,
            idempotency_window: config.idempotency_window,
        };
        let backend = match &config.redis_url {
            None => {
                let (backend, notifications) = MemoryLog::new(retention);
                Backend::of(Arc::new(backend), notifications)
            }
            Some(url) => {
                let started = RedisLog::start(
                    url,
                    &config.redis_files,
                    &config.redis_prefix,
                    &config.node_id,
                    retention,
                    config.wait_replicas,
                );
                let (backend, notifications) = started.map_err(std::io::Error::other)?;
                Backend::of(backend, notifications)
            }
        };
        let Backend {
            log,
            boards,
            catalogue,
            registry,
            revocations,
            tickets,
            probe,
            notifications,
        } = backend;
        // The first request must find the first board; Redis gets it when it can be reached.
        if config.redis_url.is_none() {
            let _ = boards.ensure_first_board().await;
        }

        // Each reactor has two of its own.
        let of_operators = if admin_address.is_some() { OPERATORS_SOCKETS_MAX } else { 0 };
        let reserved = DESCRIPTORS_RESERVED + of_operators + 2 * config.reactors;
        let sockets_max = descriptors_max.saturating_sub(reserved);
        let streams_max =
            config.max_connections.min(sockets_max.saturating_sub(DESCRIPTORS_RESERVED));
        let admission = Admission::new(StreamLimits {
            streams_max,
            streams_per_address_max: config.max_connections_per_address,
            streams_per_subject_max: config.limits.max_connections_per_subject,
            topics_max: config.limits.max_watched_topics,
            topics_per_address_max: config.limits.max_watched_topics_per_address,
        });
        let has_key = config.has_key();
        let rates = ClientRates::new(
            config.limits.requests(has_key),
            config.limits.published(has_key),
            config.limits.max_new_topics,
        );
        let compression: Arc<[Encoding]> = config.compression.0.iter().map(encoding_of).collect();
        let hub = if compression.is_empty() { Hub::new() } else { Hub::keeping_pieces() };
        let relay = Relay::new(log.clone(), hub.clone(), config.history_ttl);
        let stats = ClusterStats::new(&config.node_id, hub.clone(), admission.clone(), registry);
        let canary = Canary::new(probe.clone());
        let (stop_accepting, stopped) = watch::channel(false);
        let budget = Budget::new(BUDGET_BYTES_MAX, config.write_timeout);
        let mut replays = Replays::new(log.clone(), boards.clone(), budget);
        if !compression.is_empty() {
            replays = replays.keeping_pieces();
        }
        let node = Arc::new(Node {
            id: config.node_id.clone(),
            heartbeat: config.heartbeat,
            retry: config.retry,
            replays,
            log,
            probe,
            snapshots: boards.clone(),
            hub,
            relay: relay.clone(),
            history_entries_max: config.history_size as u64,
            endings: Endings::new(config.max_stream_age),
        });
        let background = Background::default();
        let revocations = Revocations::new(revocations, node.probe.clone());
        if access.is_configured() {
            let asking = revocations.clone();
            background.keep("revocations", move || asking.clone().run());
            let (ended, revocations) = (node.clone(), revocations.clone());
            background.keep("ends of the revoked", move || {
                end_revoked(ended.clone(), revocations.clone())
            });
        }
        let operators_answers = Arc::new(OperatorsAnswers::new(config.write_timeout));
        let app = App::new(Shared {
            access: access.clone(),
            revocations,
            tickets: Arc::new(Tickets::new(tickets, config.ticket_ttl)),
            cookies: Arc::new(Cookies::new(&config.jwt_cookie)),
            node: node.clone(),
            catalogue,
            compression,
            background: background.clone(),
            stats: stats.clone(),
            admission: admission.clone(),
            rates: Arc::new(rates),
            canary: canary.clone(),
            metrics: metrics.clone(),
            histories: Histories::default(),
            operators_answers: operators_answers.clone(),
        });
        let (operators, operators_stop) = watch::channel(false);
        if let Some(listener) = operators_listener {
            let hosts = Config::hosts_of_operators(listener.address());
            let api = Api::of_operators(app.clone(), hosts);
            let limits = Limits {
                sockets_max: OPERATORS_SOCKETS_MAX,
                // All come through few addresses, and none is a stranger's.
                sockets_per_address_max: 0,
                write_timeout: OPERATORS_WRITE_TIMEOUT,
                heartbeat: config.heartbeat,
            };
            let serving =
                server::serve(listener, api, limits, Entrance::default(), None, operators_stop);
            background.need("the operators' door", Ending::Fault, serving);
        }
        let (hosts, origins) = (config.served_hosts(), config.cors_origins.clone());
        let api = Api::new(app, boards.clone(), config.max_body, hosts, origins);
        let limits = Limits {
            sockets_max,
            sockets_per_address_max: config.max_sockets_per_address,
            write_timeout: config.write_timeout,
            heartbeat: config.heartbeat,
        };
        let reactors = match config.reactors {
            0 => None,
            count => match Reactors::start(count, &node, config.write_timeout) {
                Ok(reactors) => Some(reactors),
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => None,
                Err(error) => return Err(error),
            },
        };
        let (tell_ended, server_ended) = oneshot::channel();
        let trusted = Arc::new(TrustedProxies::new(config.trusted_proxies.0.iter().copied()));
        let entrance = Entrance { trusted, tls: tls.clone() };
        let serving = server::serve(listener, api, limits, entrance, reactors, stopped);
        background.need("accepting connections", Ending::Fine, async move {
            serving.await;
            let _ = tell_ended.send(());
        });
        if let Some(tls) = tls {
            background.keep("the certificate", move || {
                let tls = tls.clone();
                async move { match tls.follow_files().await {} }
            });
        }
        for jwks in access.published() {
            let jwks = jwks.clone();
            background.keep("the keys of an issuer", move || {
                let jwks = jwks.clone();
                async move { jwks.run().await }
            });
        }
        // It is handed the notifications, once.
        background.need("the relay", Ending::Fault, relay.run(notifications));
        background.keep("the canary", move || {
            let canary = canary.clone();
            async move { canary.run().await }
        });
        let counted = stats.clone();
        background.keep("stats", move || counted.clone().run());
        background.keep("the first board", move || keep_first_board(boards.clone()));
        let swept = node.clone();
        background.keep("upkeep", move || {
            upkeep(swept.clone(), operators_answers.clone(), metrics.clone())
        });
        Ok(Gateway {
            address,
            admin_address,
            node,
            stats,
            admission,
            stop_accepting,
            _operators: operators,
            server_ended,
            background,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operators' door is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Waits until this node cannot go on, and says why: the log is one that it can never work with,
    /// or a part of the node has ended. `/healthz` says so from then on.
    pub async fn unusable(&self) -> String {
        let unusable_log = async {
            loop {
                if let Health::Unusable(why) = self.node.probe.health() {
                    self.background.set_fault(why);
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            why = self.background.failed() => why,
            never = unusable_log => never,
        }
    }

    /// Stops accepting, ends the streams spread evenly over `window`, and waits for them
    /// (`docs/guarantees.md`, 7).
    pub async fn drain(mut self, window: Duration) -> Drained {
        let streams = self.admission.streams();
        self.stop_accepting.send_replace(true);
        self.node.endings.end_all(EndOrder::spread(EndReason::Drain, window, streams));
        let over = tokio::time::timeout(window + LAST_BYTES, &mut self.server_ended).await;
        let cut = if matches!(over, Ok(Ok(()))) { 0 } else { self.admission.streams() };
        self.background.abort_all();
        self.stats.remove().await;
        Drained { streams, cut }
    }
}

/// Terms that are looked at in one step.
const TERMS_SLICE: usize = 500;

/// Ends the streams of what is taken back.
async fn end_revoked(node: Arc<Node>, revocations: Arc<Revocations>) {
    let mut news = revocations.news();
    // One that ran before may have broken.
    news.mark_changed();
    while news.changed().await.is_ok() {
        let mut revoked = Vec::new();
        for terms in node.endings.all_terms().chunks(TERMS_SLICE) {
            let are_revoked = |terms: &&Arc<Terms>| {
                let Holder { subject, token_id, issued_at, .. } = &terms.holder;
                let (subject, token_id) = (subject.as_deref(), token_id.as_deref());
                revocations.have_revoked(&Revocable::new(subject, token_id, *issued_at))
            };
            revoked.extend(terms.iter().filter(are_revoked).cloned());
            tokio::task::yield_now().await;
        }
        if !revoked.is_empty() {
            let at_once = EndOrder::spread(EndReason::Revoked, Duration::ZERO, 1);
            node.endings.end_each(&revoked, &at_once);
        }
    }
}

/// # Errors
/// When the address that the setting has cannot be listened on.
fn listen(
    setting: &str,
    address: SocketAddr,
    write_timeout: Duration,
) -> std::io::Result<Listener> {
    Listener::bind(address, write_timeout).map_err(|error| {
        let line = format!("{setting} is \"{address}\": cannot listen there: {error}");
        std::io::Error::new(error.kind(), line)
    })
}

fn encoding_of(coding: &Coding) -> Encoding {
    match coding {
        Coding::Gzip => Encoding::Gzip,
        Coding::Brotli => Encoding::Brotli,
        Coding::Zstd => Encoding::Zstd,
    }
}

/// Small regular work that nobody waits for.
async fn upkeep(
    node: Arc<Node>,
    operators_answers: Arc<OperatorsAnswers>,
    metrics: Option<PrometheusHandle>,
) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    for seconds in 0_u64.. {
        every.tick().await;
        node.replays.sweep();
        operators_answers.look();
        if seconds.is_multiple_of(10) {
            node.endings.sweep();
        }
        if let Some(metrics) = &metrics {
            // Histograms keep every sample until somebody folds them into buckets.
            metrics.run_upkeep();
        }
    }
}
