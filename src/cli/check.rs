//! `fantail check` on the command line: arguments, progress on standard error, the verdict on
//! standard output, evidence in a file, and the exit status.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use fantail_check::{Check, GatewayUrl, Outcome, Plan, Verdict};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ExitStatus;

/// The arguments of `fantail check`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "Exit status: 0 the promises were kept, 1 one was violated, 2 nothing could be \
                  tested. Ctrl-C ends it early, with a verdict on what was seen until then.\n\n\
                  The topics are named check-<random>-<n> and are forgotten like any unused topic. \
                  Certificates are trusted as the system trusts them, or as the file says that \
                  SSL_CERT_FILE names."
)]
pub(crate) struct CheckArguments {
    /// Gateways, or load balancers before them, such as http://127.0.0.1:3000; subscribers roam between them
    #[arg(value_name = "URL", required = true)]
    urls: Vec<GatewayUrl>,

    /// Publish here instead; may be repeated
    #[arg(long, value_name = "URL")]
    publish_to: Vec<GatewayUrl>,

    /// How long to publish, in seconds
    #[arg(long, default_value = "30", value_parser = seconds)]
    seconds: Duration,

    /// Topics, 1 to 1000
    #[arg(long, default_value = "10")]
    topics: usize,

    /// Publishers, each with one request under way at a time
    #[arg(long, default_value = "4")]
    publishers: usize,

    /// Subscribers, each with one stream; of five, three are there from the start
    #[arg(long, default_value = "50")]
    subscribers: usize,

    /// Events per second in all; reached only if the answers come fast enough for the publishers
    #[arg(long, default_value = "200", value_parser = rate)]
    rate: f64,

    /// Size of an event's data in bytes
    #[arg(long, default_value = "100")]
    payload: usize,

    /// How long a subscriber stays on average before it leaves and returns elsewhere, or "never"; every fourth stays
    #[arg(long, default_value = "10s", value_parser = roam)]
    roam: Roam,

    /// How long to wait for the last deliveries
    #[arg(long, default_value = "20s", value_parser = duration)]
    settle: Duration,

    /// Give up a stream on which no byte came for so long; more than two heartbeats
    #[arg(long, default_value = "40s", value_parser = duration)]
    silence: Duration,

    /// Sent with every request, such as 'Authorization: Bearer …'; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// Believe every TLS certificate
    #[arg(long)]
    insecure: bool,

    /// The log may lose acknowledged events as long as resets say so: for failovers that are not synchronous
    #[arg(long)]
    expect_loss: bool,

    /// Events that were sent again after no answer may be in the log twice: for gateways that keep no Idempotency-Key
    #[arg(long)]
    allow_duplicates: bool,

    /// Write every violation with its evidence to this file, as one JSON object a line
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,

    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,

    /// Show no progress
    #[arg(long)]
    quiet: bool,
}

/// How long to stay; nothing means for ever.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Roam(Option<Duration>);

impl CheckArguments {
    fn plan(&self) -> Plan {
        Plan {
            urls: self.urls.clone(),
            publish_urls: self.publish_to.clone(),
            topics: self.topics,
            publishers: self.publishers,
            subscribers: self.subscribers,
            rate: self.rate,
            duration: self.seconds,
            roam: self.roam.0,
            headers: self.header.clone(),
            insecure: self.insecure,
            payload_bytes: self.payload,
            settle: self.settle,
            silence_max: self.silence,
            idempotent: !self.allow_duplicates,
            loss_expected: self.expect_loss,
            ..Plan::default()
        }
    }

    /// Checks, prints the verdict, and returns the exit status.
    ///
    /// # Errors
    /// One line that says why nothing could be tested.
    pub(crate) async fn run(&self) -> Result<ExitStatus, String> {
        let mut evidence = match &self.evidence {
            None => None,
            Some(path) => {
                let wrong = |error| format!("cannot write {}: {error}", path.display());
                Some(BufWriter::new(File::create(path).map_err(wrong)?))
            }
        };
        let mut interrupt = signal(SignalKind::interrupt())
            .map_err(|error| format!("cannot wait for signals: {error}"))?;
        let check = tokio::select! {
            check = Check::start(self.plan()) => check.map_err(|why| why.to_string())?,
            _ = interrupt.recv() => return Err("ended before it began".to_owned()),
        };
        self.watch(&check, &mut interrupt).await;
        let verdict = tokio::select! {
            verdict = check.finish() => verdict,
            _ = interrupt.recv() => return Err("ended without a verdict".to_owned()),
        };
        if let Some(file) = &mut evidence {
            write_evidence(file, &verdict)
                .map_err(|error| format!("cannot write the evidence: {error}"))?;
        }
        let text = if self.json {
            serde_json::to_string_pretty(&verdict).map_err(|error| error.to_string())?
        } else {
            verdict.to_string()
        };
        // Whoever closed the pipe still wants the exit status.
        let _ = writeln!(std::io::stdout(), "{text}");
        Ok(match verdict.outcome {
            Outcome::Kept => ExitStatus::Success,
            Outcome::Violated => ExitStatus::Failure,
            Outcome::Inconclusive => ExitStatus::NotTested,
        })
    }

    /// Shows how it goes until the time is over or an interrupt comes.
    async fn watch(&self, check: &Check, interrupt: &mut Signal) {
        let every = Duration::from_secs(if self.seconds > Duration::from_secs(60) { 5 } else { 1 });
        let progress = async {
            let mut ticks = tokio::time::interval(every);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                if !self.quiet {
                    say(&check.progress().to_string());
                }
            }
        };
        tokio::select! {
            () = check.until_planned_end() => {}
            _ = interrupt.recv() => {}
            () = progress => {}
        }
        if !self.quiet {
            say(&format!("waiting for the last deliveries, at most {:?}", self.settle));
        }
    }
}

/// Says how it goes; whoever does not want to know still wants the verdict.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn write_evidence(file: &mut impl Write, verdict: &Verdict) -> std::io::Result<()> {
    for violation in &verdict.violations {
        serde_json::to_writer(&mut *file, violation)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
    let seconds: f64 = seconds.ok_or("must be a number of seconds from 0.1 to 86400")?;
    Ok(Duration::from_secs_f64(seconds))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=1e6).contains(rate));
    rate.ok_or_else(|| "must be a number of events per second, 0.01 to 1000000".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(10)..=Duration::from_secs(86_400);
    let duration = humantime::parse_duration(text).ok().filter(|time| bounds.contains(time));
    duration.ok_or_else(|| "must be a duration such as 500ms or 20s, from 10ms to 1day".to_owned())
}

fn roam(text: &str) -> Result<Roam, String> {
    match text {
        "never" => Ok(Roam(None)),
        text => duration(text)
            .map(|mean| Roam(Some(mean)))
            .map_err(|_| "must be a duration such as 500ms or 10s, or \"never\"".to_owned()),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let right = "must be a name and a value such as 'Authorization: Bearer abc'";
    let (name, value) = text.split_once(':').ok_or(right)?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || value.is_empty() {
        return Err(right.to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}
