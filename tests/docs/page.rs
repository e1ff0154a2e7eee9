//! A page of the documentation as its readers see it: prose, links, and blocks of commands.

use std::path::{Path, PathBuf};

/// The directory of the repository.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn text(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// README.md and everything under docs/.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths: Vec<String> = std::fs::read_dir(top().join("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    paths.sort();
    paths.insert(0, "README.md".to_owned());
    paths.iter().map(|path| Page::read(path)).collect()
}

/// One Markdown file.
pub(crate) struct Page {
    /// From the top of the repository.
    pub(crate) path: String,
    /// Everything outside of fenced blocks.
    pub(crate) prose: String,
    pub(crate) blocks: Vec<Block>,
}

/// A fenced block.
pub(crate) struct Block {
    /// Where it stands, for messages.
    pub(crate) at: String,
    pub(crate) language: String,
    pub(crate) lines: Vec<String>,
}

/// One command of a block, and what is shown below it.
pub(crate) struct Step {
    /// As it is printed; may have several lines.
    pub(crate) command: String,
    /// `None` if the block shows commands alone.
    pub(crate) output: Option<Vec<String>>,
}

impl Page {
    pub(crate) fn read(path: &str) -> Page {
        let mut page = Page { path: path.to_owned(), prose: String::new(), blocks: Vec::new() };
        let mut open: Option<Block> = None;
        for (number, line) in text(path).lines().enumerate() {
            match (line.strip_prefix("```"), open.take()) {
                (Some(language), None) => {
                    let at = format!("{path}:{}", number + 1);
                    let language = language.to_owned();
                    open = Some(Block { at, language, lines: Vec::new() });
                }
                (Some(_), Some(block)) => page.blocks.push(block),
                (None, Some(mut block)) => {
                    block.lines.push(line.to_owned());
                    open = Some(block);
                }
                (None, None) => {
                    page.prose.push_str(line);
                    page.prose.push('\n');
                }
            }
        }
        assert!(open.is_none(), "{path}: a block without an end");
        page
    }

    /// Targets of its links.
    pub(crate) fn links(&self) -> impl Iterator<Item = &str> {
        self.prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0))
    }

    /// What its headings can be linked by.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Where a relative link leads: a path from the top of the repository.
    pub(crate) fn resolve(&self, target: &str) -> PathBuf {
        let directory = Path::new(&self.path).parent().unwrap_or(Path::new(""));
        let mut path = PathBuf::new();
        for part in directory.join(target).components() {
            match part {
                std::path::Component::ParentDir => assert!(path.pop(), "{target}: out of here"),
                part => path.push(part),
            }
        }
        path
    }

    /// What stands between backticks in its prose.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        self.prose.split('`').skip(1).step_by(2)
    }

    /// The cells of each row of the table below the heading `title`, without its head.
    pub(crate) fn table(&self, title: &str) -> Vec<Vec<String>> {
        let mut lines =
            self.prose.lines().skip_while(|line| line.trim_start_matches('#').trim() != title);
        assert!(lines.next().is_some(), "{}: no heading {title:?}", self.path);
        let table = lines
            .take_while(|line| !line.starts_with('#'))
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        let cells =
            |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        table.skip(2).map(cells).collect()
    }
}

/// As the site that shows the repository makes anchors: letters, digits, `-` and `_` stay.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c if c.is_alphanumeric() => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

impl Block {
    /// Its commands: the lines of `sh`, those behind `$ ` of `console`.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let console = match self.language.as_str() {
            "sh" => false,
            "console" => true,
            _ => return Vec::new(),
        };
        let mut steps: Vec<Step> = Vec::new();
        let mut goes_on = false;
        for line in &self.lines {
            let begins = if console { line.strip_prefix("$ ") } else { Some(line.as_str()) };
            match (goes_on, begins, steps.last_mut()) {
                (true, _, Some(step)) => {
                    step.command.push('\n');
                    step.command.push_str(line);
                }
                (_, Some(command), _) => {
                    let output = console.then(Vec::new);
                    steps.push(Step { command: command.to_owned(), output });
                }
                (_, None, Some(Step { output: Some(output), .. })) => {
                    output.push(line.clone());
                    continue;
                }
                _ => panic!("{}: output before the first command", self.at),
            }
            goes_on = line.ends_with('\\');
        }
        steps
    }
}

impl Step {
    /// What stands before the command as `FANTAIL_…=…`, by name and value, and the command itself.
    pub(crate) fn without_settings(&self) -> (Vec<(&str, &str)>, &str) {
        let mut settings = Vec::new();
        let mut command = self.without_comment();
        while let Some((setting, rest)) = command.split_once(' ')
            && setting.starts_with("FANTAIL_")
            && let Some(setting) = setting.split_once('=')
        {
            settings.push(setting);
            command = rest.trim_start();
        }
        (settings, command)
    }

    /// The command without the comment behind it.
    pub(crate) fn without_comment(&self) -> &str {
        self.command.split_once("  #").map_or(self.command.as_str(), |(command, _)| command).trim()
    }
}
