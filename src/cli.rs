//! The command line: arguments, subcommands, what is printed, and the status the program ends with.
//!
//! Stands above [`config`](fantail::config), which knows every setting, and decides nothing but
//! what was asked for: an [`Invocation`], or a [`UsageError`] of one line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use fantail::config::{self, Config};
use fantail::health::HealthUrl;
use fantail::log::redis::{check_files, check_url};

pub(crate) mod check;
mod environment;
pub(crate) mod exposed;
mod file;
mod wrong;

use check::CheckArguments;
use wrong::{not_utf8, one_line, wrong_value};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Serve, with these settings.
    Serve(Box<Config>),
    /// Ask there whether a gateway answers.
    Health(HealthUrl),
    /// Verify the promises of a running deployment.
    Check(Box<CheckArguments>),
    /// Print this, as for `--help` or `--version`.
    Print(String),
}

/// A command line, or an environment, that asks for nothing that can be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError {
    /// What is wrong, on one line.
    pub(crate) line: String,
    /// How the program ends.
    pub(crate) status: ExitStatus,
}

/// How the program ends: what scripts, containers and schedulers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// It was done: served to its end, answered, kept.
    Success = 0,
    /// It was not: could not serve, no answer, a promise violated.
    Failure = 1,
    /// `check` alone: nothing could be tested, so nothing is known.
    NotTested = 2,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Fantail: a horizontally scalable Server-Sent Events gateway backed by Redis.
#[derive(Debug, Parser)]
#[command(
    name = "fantail",
    version,
    about,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    config: Config,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Serve streams, tasks and topics (the default)
    Serve(Box<Config>),
    /// Ask a running gateway whether it answers: exit status 0 if so, else 1 and one line that says why
    Health(HealthArguments),
    /// Check a running deployment: publish, roam, and verify order, completeness and resets
    Check(Box<CheckArguments>),
}

#[derive(Debug, clap::Args)]
struct HealthArguments {
    /// What to ask [default: /healthz at the operators' door of this machine's gateway if there is one, else where it listens]
    #[arg(long)]
    url: Option<HealthUrl>,

    /// Its settings file, if it has one
    #[arg(long = "config", env = "FANTAIL_CONFIG", value_name = "FILE")]
    config_file: Option<PathBuf>,

    /// Where the gateway of this machine listens
    #[arg(long, env = "FANTAIL_LISTEN", default_value = "127.0.0.1:3000", value_parser = config::listen_address)]
    listen: SocketAddr,

    /// Where its operators' door is
    #[arg(long, env = "FANTAIL_ADMIN_LISTEN", value_parser = config::listen_address)]
    admin_listen: Option<SocketAddr>,

    /// Its certificate, if it speaks TLS; which one it is does not matter
    #[arg(long, env = "FANTAIL_TLS_CERT")]
    tls_cert: Option<PathBuf>,
}

/// Reads a command line (its first argument is the program's name) and the environment.
///
/// # Errors
/// One line that says what is wrong and, where that can be said, what would be right.
pub(crate) fn parse<I, T>(arguments: I) -> Result<Invocation, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
    let file::Completed { arguments, issuers } =
        file::completed(&Arguments::command(), &arguments).map_err(wrong_setting)?;
    let serve = |config: Config| serve(Config { issuers_of_file: issuers, ..config });
    match Arguments::try_parse_from(&arguments) {
        Ok(Arguments { command: Some(Subcommands::Health(health)), .. }) => {
            let listens = || match (health.admin_listen, &health.tls_cert) {
                // The operators' door speaks no TLS.
                (Some(door), _) => HealthUrl::of(door),
                (None, Some(_)) => HealthUrl::of(health.listen).over_tls(),
                (None, None) => HealthUrl::of(health.listen),
            };
            Ok(Invocation::Health(health.url.unwrap_or_else(listens)))
        }
        Ok(Arguments { command: Some(Subcommands::Check(check)), .. }) => {
            Ok(Invocation::Check(check))
        }
        Ok(Arguments { command: Some(Subcommands::Serve(config)), .. }) => serve(*config),
        Ok(Arguments { command: None, config }) => serve(config),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Invocation::Print(error.to_string()))
            }
            kind => {
                let line = match kind {
                    ErrorKind::InvalidUtf8 => not_utf8(&arguments, std::env::vars_os()),
                    _ => one_line(&error),
                };
                Err(UsageError { line, status: status_if_wrong(&arguments) })
            }
        },
    }
}

/// What the settings cannot say of themselves one by one.
fn serve(config: Config) -> Result<Invocation, UsageError> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    environment::check(variables).map_err(wrong_setting)?;
    config.check_relations().map_err(wrong_setting)?;
    // Only the log knows what addresses Redis has.
    if let Some(url) = &config.redis_url {
        check_url(url).map_err(|error| {
            let right = config::REDIS_URL_RIGHT;
            wrong_setting(wrong_value("--redis-url", url, &format!("{right}; {error}")))
        })?;
        check_files(url, &config.redis_files).map_err(wrong_setting)?;
    }
    Ok(Invocation::Serve(Box::new(config)))
}

fn wrong_setting(line: String) -> UsageError {
    UsageError { line, status: ExitStatus::Failure }
}

/// How a command ends whose arguments are wrong: a check that cannot be made is no failed one.
fn status_if_wrong(arguments: &[OsString]) -> ExitStatus {
    // The parser says which command was meant, as far as it got.
    let command = Arguments::command().ignore_errors(true);
    let matches = command.try_get_matches_from(arguments);
    match matches.ok().as_ref().and_then(|matches| matches.subcommand_name()) {
        Some("check") => ExitStatus::NotTested,
        _ => ExitStatus::Failure,
    }
}

#[cfg(test)]
mod tests;
