//! The settings file: what a TOML text says, as values of settings and as [`Issuer`]s.
//!
//! A key is the name of a setting as it is in the environment, without `FANTAIL_` and in small
//! letters. Values are read by the same rules as those of flags: this file only finds out which text
//! belongs to which setting. Besides, there are tables of issuers, which no flag could hold.

use toml::{Table, Value};

use super::identity::{Issuer, KeySource, claim, path};
use crate::nearest::nearest;

/// What the names of all variables begin with.
const PREFIX: &str = "FANTAIL_";

/// Where a settings file is cannot be said in one.
const ITSELF: &str = "FANTAIL_CONFIG";

/// Issuers in it at most.
const ISSUERS_MAX: usize = 100;

/// The tables that are no settings.
const ISSUERS: &str = "issuers";

/// What a table of an issuer may have.
const ISSUER_KEYS: [&str; 5] = ["issuer", "audience", "secret_file", "public_key", "jwks"];

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SettingsFile {
    /// Variables and their values.
    pub values: Vec<(String, String)>,
    /// Whose tokens are believed.
    pub issuers: Vec<Issuer>,
}

impl SettingsFile {
    /// Reads a text; `variables` are those of all settings.
    ///
    /// # Errors
    /// One line that says what is wrong and, where that can be said, what was probably meant. No
    /// value is in it: it may be a secret.
    pub fn read(text: &str, variables: &[String]) -> Result<SettingsFile, String> {
        let variables: Vec<&str> =
            variables.iter().map(String::as_str).filter(|variable| *variable != ITSELF).collect();
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
            let at = line.map(|line| format!(" in line {line}")).unwrap_or_default();
            format!("it is no TOML{at}: {}", error.message())
        })?;
        let mut file = SettingsFile::default();
        for (key, value) in table {
            if key == ISSUERS {
                file.issuers = issuers(value)?;
                continue;
            }
            let variable = variables.iter().find(|variable| key_of(variable) == key);
            let Some(variable) = variable else {
                let keys: Vec<String> = variables.iter().map(|variable| key_of(variable)).collect();
                return Err(unknown(&key, keys.iter().map(String::as_str).chain([ISSUERS])));
            };
            let value = text_of(value).ok_or_else(|| {
                format!("{key} must be a text, a number, true or false, or a list of texts")
            })?;
            file.values.push(((*variable).to_owned(), value));
        }
        Ok(file)
    }
}

/// How a variable is called in the file.
fn key_of(variable: &str) -> String {
    variable.strip_prefix(PREFIX).unwrap_or(variable).to_ascii_lowercase()
}

fn unknown<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(key, known) {
        Some(meant) => format!("{key:?} is no setting: did you mean {meant}?"),
        None => format!("{key:?} is no setting"),
    }
}

/// A value as a flag would have it.
fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        Value::Array(values) => {
            let texts: Option<Vec<String>> = values.into_iter().map(text_of_one).collect();
            texts.map(|texts| texts.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn text_of_one(value: Value) -> Option<String> {
    // One that has a comma would become two.
    let text = if let Value::String(text) = value { text } else { return None };
    (!text.contains(',')).then_some(text)
}

fn issuers(value: Value) -> Result<Vec<Issuer>, String> {
    let wrong = || format!("{ISSUERS} must be tables: [[{ISSUERS}]]");
    let Value::Array(tables) = value else { return Err(wrong()) };
    if tables.len() > ISSUERS_MAX {
        return Err(format!("there are more than {ISSUERS_MAX} [[{ISSUERS}]]"));
    }
    let mut issuers: Vec<Issuer> = Vec::new();
    for (at, table) in tables.into_iter().enumerate() {
        let Value::Table(table) = table else { return Err(wrong()) };
        let issuer =
            issuer(table).map_err(|why| format!("[[{ISSUERS}]] number {}: {why}", at + 1))?;
        if issuers.iter().any(|other| other.name == issuer.name) {
            return Err(format!("[[{ISSUERS}]] number {}: another one has this issuer", at + 1));
        }
        issuers.push(issuer);
    }
    Ok(issuers)
}

fn issuer(table: Table) -> Result<Issuer, String> {
    let mut texts = Vec::new();
    for (key, value) in table {
        let Some(key) = ISSUER_KEYS.into_iter().find(|known| *known == key) else {
            return Err(unknown(&key, ISSUER_KEYS));
        };
        let Value::String(text) = value else { return Err(format!("{key} must be a text")) };
        texts.push((key, text));
    }
    let text =
        |key: &str| texts.iter().find(|(other, _)| *other == key).map(|(_, text)| text.as_str());
    let read = |key: &str, read: fn(&str) -> Result<String, String>| {
        text(key).map(read).transpose().map_err(|why| format!("{key} {why}"))
    };
    let name = read("issuer", claim)?.ok_or("it needs issuer, what its tokens have as iss")?;
    let audience = read("audience", claim)?;
    let file = |key| text(key).map(path).transpose().map_err(|why| format!("{key} {why}"));
    let secret = file("secret_file")?.map(KeySource::SecretFile);
    let public_key = file("public_key")?.map(KeySource::PublicKey);
    let jwks = text("jwks").map(super::identity::jwks).transpose();
    let jwks = jwks.map_err(|why| format!("jwks {why}"))?.map(KeySource::Jwks);
    let mut keys = [secret, public_key, jwks].into_iter().flatten();
    match (keys.next(), keys.next()) {
        (Some(keys), None) => {
            Ok(Issuer { name: Some(name), audience, keys, mercure: false, is_of_file: true })
        }
        _ => Err("it needs one of secret_file, public_key and jwks".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SettingsFile, String> {
        let variables = [
            "FANTAIL_CONFIG",
            "FANTAIL_HEARTBEAT",
            "FANTAIL_HISTORY_SIZE",
            "FANTAIL_CORS_ORIGINS",
            "FANTAIL_LOG",
        ];
        SettingsFile::read(text, &variables.map(str::to_owned))
    }

    #[test]
    fn keys_are_settings_and_values_are_what_flags_have() {
        let text = "heartbeat = \"20s\"\nhistory_size = 5 # few\nlog = 'warn'\n\
                    cors_origins = [\"https://a.example\", \"https://b.example\"]\n";
        let mut values = read(text).unwrap().values;
        values.sort();
        let expected = [
            ("FANTAIL_CORS_ORIGINS", "https://a.example,https://b.example"),
            ("FANTAIL_HEARTBEAT", "20s"),
            ("FANTAIL_HISTORY_SIZE", "5"),
            ("FANTAIL_LOG", "warn"),
        ];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(read(""), Ok(SettingsFile::default()));
    }

    #[test]
    fn what_is_wrong_is_one_line_without_a_value() {
        for (text, part) in [
            ("heartbeats = 'hunter2'", "did you mean heartbeat?"),
            ("HEARTBEAT = 'hunter2'", "did you mean heartbeat?"),
            ("fantail_heartbeat = 'hunter2'", "\"fantail_heartbeat\" is no setting"),
            ("issuer = 'hunter2'", "did you mean issuers?"),
            ("config = 'hunter2'", "\"config\" is no setting"),
            ("zzz = 'hunter2'", "\"zzz\" is no setting"),
            ("log = 'hunter2", "it is no TOML in line 1"),
            ("heartbeat = '1s'\nlog = hunter2", "it is no TOML in line 2"),
            ("log = 'a'\nlog = 'hunter2'", "it is no TOML in line 2"),
            ("log = 1979-05-27", "log must be"),
            ("[log]\nx = 'hunter2'", "log must be"),
            ("cors_origins = ['hunter2', 1]", "cors_origins must be"),
            ("issuers = 'hunter2'", "issuers must be tables"),
            ("[issuers]\nissuer = 'hunter2'", "issuers must be tables"),
            ("[[issuers]]\nissuer = 'a'\njwk = 'hunter2'", "did you mean jwks?"),
            ("[[issuers]]\njwks = '/hunter2'", "number 1: it needs issuer"),
            ("[[issuers]]\nissuer = 'a'", "number 1: it needs one of"),
            (
                "[[issuers]]\nissuer = 'a'\njwks = '/x'\npublic_key = '/hunter2'",
                "number 1: it needs one of",
            ),
            ("[[issuers]]\nissuer = 1\njwks = '/x'", "number 1: issuer must be a text"),
            (
                "[[issuers]]\nissuer = 'a'\njwks = '/x'\n[[issuers]]\nissuer = 'a'\njwks = '/y'",
                "number 2: another one",
            ),
        ] {
            let line = read(text).unwrap_err();
            assert!(line.contains(part), "{text}: {line}");
            assert!(!line.contains("hunter2") && line.lines().count() == 1, "{text}: {line}");
        }
    }

    #[test]
    fn every_issuer_has_keys_of_its_own() {
        let text = "[[issuers]]\nissuer = 'a'\nsecret_file = '/a'\n\
                    [[issuers]]\nissuer = 'b'\naudience = 'us'\njwks = 'https://b.example/keys'\n";
        let issuers = read(text).unwrap().issuers;
        assert_eq!(issuers.len(), 2);
        assert_eq!(issuers[0].keys, KeySource::SecretFile("/a".into()));
        assert_eq!(
            (issuers[1].name.as_deref(), issuers[1].audience.as_deref()),
            (Some("b"), Some("us"))
        );
    }
}
