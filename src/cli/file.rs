//! The settings file: where it is, and what it says where neither flags nor variables do.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use fantail::config::{Config, Issuer, SettingsFile};

use super::wrong::one_line;

/// The setting that says where it is.
const SETTING: &str = "--config (FANTAIL_CONFIG)";
const ID: &str = "config_file";

/// The largest settings file, in bytes: far more than all settings and all issuers have.
const BYTES_MAX: u64 = 1 << 20;

/// A command line as it would be if it said what the file says.
pub(super) struct Completed {
    pub(super) arguments: Vec<OsString>,
    pub(super) issuers: Vec<Issuer>,
}

/// Completes a command line, if it or the environment names a settings file. What the file says goes
/// through the same readers as everything else, so that the same is right there.
///
/// # Errors
/// One line that says what is wrong with the file, without a value that may be a secret.
pub(super) fn completed(program: &Command, arguments: &[OsString]) -> Result<Completed, String> {
    let mut completed = Completed { arguments: arguments.to_vec(), issuers: Vec::new() };
    // What is wrong without the file is said by whoever reads it next.
    let Ok(matches) = program.clone().try_get_matches_from(arguments) else {
        return Ok(completed);
    };
    let (command, matches) = match matches.subcommand() {
        Some((name, of_subcommand)) => (program.find_subcommand(name), of_subcommand),
        None => (Some(program), &matches),
    };
    let path = matches.try_get_one::<PathBuf>(ID).ok().flatten();
    let (Some(command), Some(path)) = (command, path) else { return Ok(completed) };
    let in_file = |why: String| format!("{SETTING} is {:?}: {why}", path.display().to_string());
    let settings = Config::reference();
    let variables: Vec<String> =
        settings.iter().map(|[_, variable, ..]| variable.clone()).collect();
    let file = SettingsFile::read(&read(path).map_err(in_file)?, &variables).map_err(in_file)?;
    for (variable, value) in file.values {
        let setting = settings.iter().find(|[_, other, ..]| *other == variable);
        if let Some([flag, ..]) = setting
            && is_left_open(command, matches, flag)
        {
            completed.arguments.push(format!("{flag}={value}").into());
        }
    }
    completed.issuers = file.issuers;
    match program.clone().try_get_matches_from(&completed.arguments) {
        Ok(_) => Ok(completed),
        Err(error) => Err(in_file(one_line(&error))),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |error| format!("cannot read it: {error}");
    let file = File::open(path).map_err(cannot)?;
    let mut text = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut text).map_err(cannot)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    String::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())
}

/// Whether a command takes this flag, and neither the command line nor the environment has it.
fn is_left_open(command: &Command, matches: &ArgMatches, flag: &str) -> bool {
    let long = flag.trim_start_matches('-');
    let argument = command.get_arguments().find(|argument| argument.get_long() == Some(long));
    argument.is_some_and(|argument| {
        let source = matches.value_source(argument.get_id().as_str());
        !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Invocation, UsageError, parse};
    use super::*;

    /// A file that goes away with its owner.
    struct TempFile(PathBuf);

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn asked(text: &str, arguments: &[&str]) -> Result<Invocation, UsageError> {
        let name = format!("fantail-{}-{}.toml", std::process::id(), fastrand::u64(..));
        let file = TempFile(std::env::temp_dir().join(name));
        std::fs::write(&file.0, text).unwrap();
        let path = file.0.to_str().unwrap();
        let arguments = arguments.iter().map(|argument| argument.replace("FILE", path));
        parse(std::iter::once("fantail".to_owned()).chain(arguments))
    }

    fn served(text: &str, arguments: &[&str]) -> Box<Config> {
        match asked(text, arguments) {
            Ok(Invocation::Serve(config)) => config,
            other => panic!("{text:?} {arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn what_no_flag_says_the_file_does() {
        let text = "retry = '5s'\nhistory_size = 7\nanonymous = 'read'\nmercure_tokens = false\n\
                    hosts = ['a.example', 'b.example']";
        for arguments in [&["--config", "FILE"][..], &["serve", "--config=FILE"]] {
            let config = served(text, arguments);
            assert_eq!((config.retry, config.history_size), (Duration::from_secs(5), 7));
            assert_eq!(config.heartbeat, Duration::from_secs(15));
            assert!(format!("{:?}", config.hosts).contains("b.example"));
            let flags = [arguments, &["--retry", "4s"]].concat();
            let config = served(text, &flags);
            assert_eq!((config.retry, config.history_size), (Duration::from_secs(4), 7));
        }
        let with_issuers = "[[issuers]]\nissuer = 'a'\njwks = 'https://a.example/keys'";
        assert_eq!(served(with_issuers, &["--config", "FILE"]).issuers().len(), 1);
        assert_eq!(served("", &["--config", "FILE"]).issuers().len(), 0);
    }

    #[test]
    fn health_is_asked_for_where_the_file_says() {
        let text = "listen = '127.0.0.1:7'\nretry = '5s'\n[[issuers]]\nissuer = 'a'\njwks = '/a'";
        let Ok(Invocation::Health(url)) = asked(text, &["health", "--config", "FILE"]) else {
            panic!("no health")
        };
        assert!(format!("{url:?}").contains("127.0.0.1:7"), "{url:?}");
        assert!(matches!(asked("x", &["--version", "--config", "FILE"]), Ok(Invocation::Print(_))));
    }

    #[test]
    fn what_is_wrong_is_said_of_the_file_without_a_value_that_may_be_a_secret() {
        for (text, parts) in [
            ("retry = 'soon'", &["--retry (FANTAIL_RETRY) is \"soon\"", "500ms"][..]),
            ("history_size = 0", &["FANTAIL_HISTORY_SIZE", "from 1 to"]),
            ("redis_url = 'hunter2://x'", &["FANTAIL_REDIS_URL", "not shown"]),
            ("jwt_secret = ['hunter2', 'x']\nretry = 's'", &["FANTAIL_RETRY"]),
            ("jwks = 'https://hunter2@a.example/'", &["FANTAIL_JWKS", "without a user"]),
            ("mercure_tokens = 'yes'", &["FANTAIL_MERCURE_TOKENS", "true, false"]),
            ("retri = 'hunter2'", &["did you mean retry?"]),
            ("retry = hunter2", &["it is no TOML in line 1"]),
            ("retry = '1s'\n[[issuers]]\nissuer = 'a'", &["number 1: it needs one of"]),
        ] {
            let line = asked(text, &["--config", "FILE"]).unwrap_err().line;
            assert!(line.starts_with("--config (FANTAIL_CONFIG) is \"/"), "{text}: {line}");
            assert!(parts.iter().all(|part| line.contains(part)), "{text}: {line}");
            assert!(!line.contains("hunter2") && line.lines().count() == 1, "{text}: {line}");
        }
        let missing = asked("", &["--config", "/no/such/file"]).unwrap_err().line;
        assert!(missing.contains("\"/no/such/file\": cannot read it"), "{missing}");
    }

    #[test]
    fn issuers_stand_in_one_place() {
        let text = "[[issuers]]\nissuer = 'a'\njwks = 'https://a.example/keys'";
        for (flags, part) in [
            (&["--jwks", "https://b.example"][..], "give all issuers there"),
            (&["--jwt-secret-file", "/b"], "give all issuers there"),
            (&["--jwt-issuer", "b"], "of its own"),
            (&["--jwt-audience", "b"], "of its own"),
        ] {
            let arguments = [&["--config", "FILE"][..], flags].concat();
            let line = asked(text, &arguments).unwrap_err().line;
            assert!(line.contains(flags[0]) && line.contains(part), "{flags:?}: {line}");
        }
        let both = format!("jwt_secret_file = '/b'\n{text}");
        let line = asked(&both, &["--config", "FILE"]).unwrap_err().line;
        assert!(line.contains("give all issuers there"), "{line}");
        // A key of an issuer is a key: the node may listen where others are.
        let open = format!("listen = '0.0.0.0:1'\nmercure_tokens = true\n{text}");
        assert!(served(&open, &["--config", "FILE"]).issuers()[0].mercure);
        let line = asked("mercure_tokens = true", &["--config", "FILE"]).unwrap_err().line;
        assert!(line.contains("FANTAIL_MERCURE_TOKENS") && line.contains("needs a key"), "{line}");
    }
}
