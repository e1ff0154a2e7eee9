//! The house keeps its shape: no circle of imports in `src/`, and no door opens that is closed.
//!
//! Reads sources as text: `use` declarations and paths that are written in full. Comments, links in
//! documentation, strings and unit tests do not count. A rule about a room that does not exist
//! (yet, or any more) applies to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms that lie within another one and count as rooms of their own. All others are what is
/// directly under `src/`: a file, and the directory of its name.
const ROOMS_WITHIN: &[&str] = &["log/memory", "log/redis"];

/// Rooms that only compute: they are tested without time, network or a runtime.
const PURE: &[&str] = &[
    "topic", "position", "entry", "frame", "said", "wire", "stream", "board", "nearest", "address",
    "access",
];

/// Files in such rooms that wait all the same.
const WAITING: &[&str] = &[
    "access/jwks",
    "access/revocations",
    "board/first",
    "stream/follower",
    "stream/follower/patience",
    "stream/session",
    "stream/terms",
];

/// Who names the task board, an application over the log: where it is mounted, and its own part of
/// each log.
const BOARD_FILES: &[&str] = &["gateway", "http", "http/board"];
const BOARD_DIRECTORIES: &[&str] = &["http/board", "log/memory/boards", "log/redis/boards"];

/// What speaks HTTP as a server.
const HTTP: &[&str] = &["axum", "hyper", "hyper_util", "http_body", "tower", "tower_http"];

/// What speaks Redis.
const REDIS: &[&str] = &["redis", "deadpool_redis"];

/// What waits, or knows the network.
const NETWORK: &[&str] = &["tokio::net", "std::net", "rustix::net", "socket2"];

/// The program: the rooms that are no part of the library.
const PROGRAM: &[&str] = &["main", "cli"];

/// What a file may not import, being in this room; both rooms and crates.
fn closed_doors(file: &str, room: &str) -> Vec<&'static str> {
    let mut closed = Vec::new();
    if PURE.contains(&room) && !WAITING.contains(&file) {
        closed.extend(["tokio"]);
    }
    if room != "log/redis" {
        closed.extend(REDIS);
    }
    if !["http", "net"].contains(&room) {
        closed.extend(HTTP);
    }
    if ["hub", "relay"].contains(&room) {
        closed.extend(NETWORK);
    }
    // Which of the logs is running is known where one is chosen, and where its address is read.
    if !["gateway", "cli"].contains(&room) {
        closed.extend(["log/memory", "log/redis"]);
    }
    let is_of_board = |directory: &&str| is_within(file, directory, "/");
    if !BOARD_FILES.contains(&file) && !BOARD_DIRECTORIES.iter().any(is_of_board) {
        closed.extend(["board"]);
    }
    // Decide, encode, carry: each knows only what the one before it hands on.
    if ["hub", "relay", "replay", "stream", "wire"].contains(&room) {
        closed.extend(["net", "http"]);
    }
    if room == "wire" {
        closed.extend(["stream", "hub", "log"]);
    }
    // Values alone: whoever starts a room hands it what it needs of them.
    if room == "config" {
        closed.extend(["log", "telemetry", "health"]);
    }
    if room == "telemetry" {
        closed.extend(["config"]);
    }
    if !PROGRAM.contains(&room) {
        closed.extend(["fantail_check", "cli"]);
    }
    if room != "main" {
        closed.extend(["gateway"]);
    }
    closed
}

#[test]
fn no_imports_go_round_in_a_circle() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in ["src", "check/src", "bench/src"] {
        let house = House::read(&top.join(source));
        let mut between_rooms = BTreeMap::<String, BTreeSet<String>>::new();
        let mut between_files = BTreeMap::<String, BTreeSet<String>>::new();
        for Import { from, to, .. } in house.imports.iter().filter(|import| import.is_internal) {
            let (one, other) = (room(from), room(to));
            if one != other && source == "src" {
                between_rooms.entry(one).or_default().insert(other);
            }
            // That a file is put together of those below it is what it is there for.
            if from != to && !to.starts_with(&format!("{from}/")) {
                between_files.entry(from.clone()).or_default().insert(to.clone());
            }
        }
        for imports in [between_rooms, between_files] {
            let circle = circle(&imports);
            assert!(circle.is_empty(), "{source}: {}", circle.join(" imports "));
        }
    }
}

#[test]
fn every_room_keeps_its_doors() {
    let house = House::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut broken = BTreeSet::new();
    for import in &house.imports {
        let Import { from, to, .. } = import;
        let of = room(from);
        // Within a room there are no doors.
        if import.is_internal && room(to) == of {
            continue;
        }
        for closed in closed_doors(from, &of) {
            let is_room = import.is_internal && room(to) == closed;
            let is_crate = !import.is_internal && is_within(to, closed, "::");
            if is_room || is_crate {
                broken.insert(format!("{from} imports {to}, and {of} may not import {closed}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    for room in ["hub", "relay", "http", "log/redis", "gateway", "config", "main", "cli"] {
        assert!(house.files.iter().any(|file| self::room(file) == room), "no {room} was read");
    }
}

/// They panic when nobody reads what is printed, and wait while nobody does.
#[test]
fn nothing_prints_but_by_a_writer_that_can_fail() {
    let mut texts = BTreeMap::new();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in ["src", "check/src"] {
        read_below(&top.join(source), &top.join(source), &mut texts);
    }
    assert!(texts.len() > 50, "the sources were read");
    for (file, text) in texts {
        for pair in without_tests(&tokens(&text)).windows(2) {
            let prints = ["print", "println", "eprint", "eprintln", "dbg"].contains(&&*pair[0]);
            assert!(!prints || pair[1] != "!", "{file} uses {}!", pair[0]);
        }
    }
}

/// The room that a file is in.
fn room(file: &str) -> String {
    match ROOMS_WITHIN.iter().find(|room| is_within(file, room, "/")) {
        Some(room) => (*room).to_owned(),
        None => file.split('/').next().unwrap_or_default().to_owned(),
    }
}

fn is_within(path: &str, above: &str, separator: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
}

/// Names along a circle, the first one again at its end; empty if there is none.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    /// Walks on from the end of `way`, and leaves the circle in it if it finds one.
    fn walk<'a>(
        imports: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a String>,
        done: &mut BTreeSet<&'a String>,
    ) -> bool {
        let at = way[way.len() - 1];
        for next in imports.get(at).into_iter().flatten() {
            if let Some(first) = way.iter().position(|passed| *passed == next) {
                way.drain(..first);
                way.push(next);
                return true;
            }
            if !done.contains(next) {
                way.push(next);
                if walk(imports, way, done) {
                    return true;
                }
                way.pop();
            }
        }
        done.insert(at);
        false
    }
    let mut done = BTreeSet::new();
    for start in imports.keys() {
        let mut way = vec![start];
        if !done.contains(start) && walk(imports, &mut way, &mut done) {
            return way.into_iter().cloned().collect();
        }
    }
    Vec::new()
}

// --- Reading -----------------------------------------------------------------------------------

/// That one file names something of another file, or of a crate.
#[derive(Debug)]
struct Import {
    /// Such as `log/redis/keys`.
    from: String,
    /// The same, or a path such as `tokio::net::TcpStream`.
    to: String,
    is_internal: bool,
}

/// The sources of one package.
struct House {
    files: BTreeSet<String>,
    imports: Vec<Import>,
}

impl House {
    fn read(top: &Path) -> House {
        let mut texts = BTreeMap::new();
        read_below(top, top, &mut texts);
        let texts: BTreeMap<String, Vec<Token>> =
            texts.into_iter().map(|(file, text)| (file, without_tests(&tokens(&text)))).collect();
        // A file that only unit tests declare is one of theirs.
        let declared: BTreeSet<String> = texts
            .iter()
            .flat_map(|(file, tokens)| {
                let parent = if ["lib", "main"].contains(&file.as_str()) { "" } else { file };
                declared(tokens).map(move |name| join(parent, name))
            })
            .chain(["lib", "main"].map(str::to_owned))
            .collect();
        let files: BTreeSet<String> =
            texts.keys().filter(|file| declared.contains(*file)).cloned().collect();
        let mut imports = Vec::new();
        for (file, tokens) in texts.iter().filter(|(file, _)| files.contains(*file)) {
            for path in paths(tokens) {
                imports.extend(import(file, &path, &files));
            }
        }
        House { files, imports }
    }
}

fn read_below(top: &Path, dir: &Path, texts: &mut BTreeMap<String, String>) {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.collect::<Vec<PathBuf>>() {
        if path.is_dir() {
            read_below(top, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(top).unwrap().with_extension("");
            texts
                .insert(name.to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

/// What a path in a file leads to; `None` if to the root of its crate or to something of its own.
fn import(file: &str, path: &[String], files: &BTreeSet<String>) -> Option<Import> {
    let root = if ["lib", "main"].contains(&file) { "" } else { file };
    let above = |at: &str| at.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
    let mut at = match path[0].as_str() {
        "crate" | "fantail" => String::new(),
        "self" => root.to_owned(),
        "super" => above(root),
        // One of the modules that the file declares, or a crate.
        first if files.contains(&join(root, first)) => join(root, first),
        _ => {
            let (from, to) = (file.to_owned(), path.join("::"));
            return Some(Import { from, to, is_internal: false });
        }
    };
    for name in &path[1..] {
        if name == "super" {
            at = above(&at);
        } else if files.contains(&join(&at, name)) {
            at = join(&at, name);
        } else {
            break;
        }
    }
    (!at.is_empty()).then(|| Import { from: file.to_owned(), to: at, is_internal: true })
}

/// A word, or a mark of one or two characters.
type Token = String;

/// The words and marks of a text, without comments, strings and characters.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if c == '"' || rest.starts_with("b\"") {
            string(rest)
        } else if c == '\'' {
            character(rest)
        } else if word > 0 {
            tokens.push(rest[..word].to_owned());
            word
        } else {
            let length = if rest.starts_with("::") { 2 } else { c.len_utf8() };
            if !c.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the raw string that begins here, if one does.
fn raw_string(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let quoted = inner.trim_start_matches('#');
    let end = format!("\"{}", "#".repeat(inner.len() - quoted.len()));
    let body = quoted.strip_prefix('"')?;
    Some(text.len() - body.len() + body.find(&end)? + end.len())
}

fn string(text: &str) -> usize {
    let first = text.find('"').unwrap_or_default() + 1;
    let mut is_escaped = false;
    for (at, c) in text[first..].char_indices() {
        if c == '"' && !is_escaped {
            return first + at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

/// A character, or the mark of a lifetime.
fn character(text: &str) -> usize {
    let mut inner = text[1..].chars();
    match (inner.next(), inner.next()) {
        (Some('\\'), _) => {
            2 + text[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').unwrap().0 + 1
        }
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}

/// Without the items that are there for tests alone.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut rest = tokens;
    while let Some(token) = rest.first() {
        if token == "#" && rest.get(2).is_some_and(|token| token == "cfg") {
            let end = rest.iter().position(|token| token == "]").unwrap();
            let condition = &rest[3..end];
            if condition.contains(&"test".to_owned()) && !condition.contains(&"not".to_owned()) {
                rest = &rest[end + 1..];
                rest = &rest[item(rest)..];
                continue;
            }
        }
        kept.push(token.clone());
        rest = &rest[1..];
    }
    kept
}

/// How long an item is: to its semicolon, or to the end of its braces.
fn item(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return at + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The modules that a file declares as files.
fn declared(tokens: &[Token]) -> impl Iterator<Item = &str> {
    tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";").map(|three| &*three[1])
}

/// Every path of two names or more, and every one that is imported.
fn paths(tokens: &[Token]) -> Vec<Vec<String>> {
    let is_name = |token: &Token| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "use" {
            let end = at + item_of_use(&tokens[at..]);
            tree(&tokens[at + 1..end], &[], &mut paths);
            at = end;
        } else if is_name(&tokens[at]) && tokens.get(at + 1).is_some_and(|next| next == "::") {
            let mut path = vec![tokens[at].clone()];
            while tokens.get(at + 1).is_some_and(|next| next == "::")
                && tokens.get(at + 2).is_some_and(is_name)
            {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            paths.push(path);
        }
        at += 1;
    }
    paths
}

/// Up to the semicolon of a `use`.
fn item_of_use(tokens: &[Token]) -> usize {
    tokens.iter().position(|token| token == ";").unwrap_or(tokens.len())
}

/// The paths of `a::{b, c::d}`.
fn tree(tokens: &[Token], before: &[String], paths: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let is_end = |token: &Token| {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," => return depth == 0,
            _ => {}
        }
        false
    };
    for part in tokens.split(is_end).filter(|part| !part.is_empty()) {
        let mut path = before.to_vec();
        let mut rest = part;
        while let [name, more @ ..] = rest {
            match name.as_str() {
                "{" => {
                    tree(&more[..more.len() - 1], &path, paths);
                    path.clear();
                    break;
                }
                "::" => {}
                "as" => break,
                name => path.push(name.to_owned()),
            }
            rest = more;
        }
        if !path.is_empty() {
            paths.push(path);
        }
    }
}

#[test]
fn the_reader_sees_what_is_imported_and_nothing_else() {
    let text = r##"
        //! [`frame`](crate::frame)
        use std::{fmt, net::{IpAddr, self}};
        pub(crate) use super::keys::Keys as Names;
        const TEXT: &str = "use crate::hub;"; const RAW: &str = r#"crate::"relay"#;
        fn f<'a>(x: &'a str) -> char { crate::topic::Topic::new(x); '\'' }
        #[cfg(test)]
        mod tests { use tokio::test; fn g() { axum::serve() } }
        #[cfg(not(target_os = "linux"))]
        use rustix::net;
    "##;
    let paths: Vec<String> =
        paths(&without_tests(&tokens(text))).iter().map(|path| path.join("::")).collect();
    let expected = [
        "std::fmt",
        "std::net::IpAddr",
        "std::net::self",
        "super::keys::Keys",
        "crate::topic::Topic::new",
        "rustix::net",
    ];
    assert_eq!(paths, expected);

    let files = ["log/redis", "log/redis/keys", "log/redis/scripts", "topic"];
    let files = files.map(str::to_owned).into();
    let to = |file: &str, path: &str| {
        let path: Vec<String> = path.split("::").map(str::to_owned).collect();
        import(file, &path, &files).map(|import| (import.to, import.is_internal))
    };
    assert_eq!(to("log/redis/scripts", "super::keys::Keys"), Some(("log/redis/keys".into(), true)));
    assert_eq!(to("log/redis", "keys::Keys"), Some(("log/redis/keys".into(), true)));
    assert_eq!(to("log/redis", "redis::Value"), Some(("redis::Value".into(), false)));
    assert_eq!(to("main", "fantail::topic::Topic"), Some(("topic".into(), true)));
    assert_eq!(to("topic", "crate::VERSION"), None);
}

#[test]
fn a_circle_is_found_and_named_in_its_order() {
    let imports = |edges: &[(&str, &str)]| {
        let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
        for (from, to) in edges {
            imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        imports
    };
    let straight = imports(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]);
    assert_eq!(circle(&straight), [""; 0]);
    let round = imports(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")]);
    assert_eq!(circle(&round), ["b", "c", "d", "b"]);
}
