//! Who may import whom, as the table in `src/lib.rs` has it: read from the sources, so that no review has to.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What a room may import of this crate, beside itself.
const ROOMS: [(&str, &[&str]); 6] = [
    ("model", &[]),
    ("wire", &[]),
    ("engine", &["wire", "model"]),
    ("control", &["model"]),
    ("tui", &["control", "model"]),
    ("cli", &["tui", "control", "engine", "model", "wire"]),
];

/// The console reaches the engine through the control client, so it takes nothing else of `control`.
const TUI_OF_CONTROL: [&str; 4] = ["client", "protocol", "Client", "ClientError"];

/// Parts of the engine that know each other's types only through what `link` passes along.
const SEPARATE: [&str; 5] = ["replica", "spool", "snapshot", "arbiter", "apply"];

/// And those that may, along the arrows of the picture: a replica's bytes go straight into its spool; what is applied
/// carries the arbiter's tokens, and its replies are told to the arbiter.
const ALONG_THE_ARROW: [(&str, &str); 2] = [("replica", "spool"), ("apply", "arbiter")];

/// Crates that belong to one room.
const OWNED: [(&str, &[&str]); 2] = [("tui", &["ratatui", "crossterm", "tui_input"]), ("cli", &["clap", "anyhow"])];

/// A path used in a file, from the root of the crate: `["wire", "resp", "Frame"]`, and the line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    path: Vec<String>,
    line: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Colons,
    Punct(char),
}

/// The tokens that matter for paths, without comments, strings and character literals; each with its line.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    let is = |i: usize, s: &str| s.chars().enumerate().all(|(n, c)| chars.get(i + n) == Some(&c));
    while let Some(&c) = chars.get(i) {
        if c == '\n' {
            line += 1;
        }
        if is(i, "//") {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if is(i, "/*") {
            while i < chars.len() && !is(i, "*/") {
                line += usize::from(chars[i] == '\n');
                i += 1;
            }
            i += 2;
        } else if c == 'r' && (is(i, "r\"") || is(i, "r#\"") || is(i, "r##\"")) {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            let end: String = format!("\"{}", "#".repeat(hashes));
            i += 2 + hashes;
            while i < chars.len() && !is(i, &end) {
                line += usize::from(chars[i] == '\n');
                i += 1;
            }
            i += end.len();
        } else if c == '"' {
            i += 1;
            while i < chars.len() && chars[i] != '"' {
                i += usize::from(chars[i] == '\\');
                line += usize::from(chars.get(i) == Some(&'\n'));
                i += 1;
            }
            i += 1;
        } else if c == '\'' && (chars.get(i + 1) == Some(&'\\') || chars.get(i + 2) == Some(&'\'')) {
            i += if chars.get(i + 1) == Some(&'\\') { 3 } else { 2 };
            while i < chars.len() && chars[i] != '\'' {
                i += 1;
            }
            i += 1;
        } else if c.is_alphabetic() || c == '_' {
            let start = i;
            while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_') {
                i += 1;
            }
            out.push((Token::Word(chars[start..i].iter().collect()), line));
        } else if is(i, "::") {
            out.push((Token::Colons, line));
            i += 2;
        } else {
            if !c.is_whitespace() {
                out.push((Token::Punct(c), line));
            }
            i += 1;
        }
    }
    out
}

/// Every path of a file that begins with `crate`, `self` or `super`, and every first segment of another, resolved from
/// the module that the file is; modules within the file are followed.
fn used(module: &[String], text: &str) -> Vec<Used> {
    let tokens = tokens(text);
    let (mut out, mut i) = (Vec::new(), 0);
    let (mut inner, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
    while i < tokens.len() {
        let before_is_path = i > 0 && tokens[i - 1].0 == Token::Colons;
        match &tokens[i].0 {
            Token::Punct('{') => depth += 1,
            Token::Punct('}') => {
                depth = depth.saturating_sub(1);
                if inner.last().is_some_and(|(_, d)| *d == depth) {
                    inner.pop();
                }
            }
            Token::Word(w) if w == "mod" => {
                if let (Some((Token::Word(name), _)), Some((Token::Punct('{'), _))) =
                    (tokens.get(i + 1), tokens.get(i + 2))
                {
                    inner.push((name.clone(), depth));
                }
            }
            Token::Word(_) if !before_is_path && tokens.get(i + 1).is_some_and(|t| t.0 == Token::Colons) => {
                let mut here: Vec<String> = module.to_vec();
                here.extend(inner.iter().map(|(n, _)| n.clone()));
                i = tree(&tokens, i, &[], &here, &mut out);
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    out
}

/// Reads one path or use tree from `i` on, with `prefix` before it; returns where it ends.
fn tree(tokens: &[(Token, usize)], mut i: usize, prefix: &[String], here: &[String], out: &mut Vec<Used>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(i).map_or(0, |t| t.1);
    loop {
        match tokens.get(i).map(|t| &t.0) {
            Some(Token::Word(w)) => path.push(w.clone()),
            Some(Token::Punct('{')) => {
                i += 1;
                while i < tokens.len() && tokens[i].0 != Token::Punct('}') {
                    let next = tree(tokens, i, &path, here, out);
                    // A comma, `as name`, `*`: nothing of a path.
                    i = if next == i { i + 1 } else { next };
                }
                return i + 1;
            }
            _ => break,
        }
        i += 1;
        if tokens.get(i).map(|t| &t.0) != Some(&Token::Colons) {
            break;
        }
        i += 1;
    }
    if path.len() > prefix.len() {
        out.push(Used { path: resolve(&path, here), line });
    }
    i
}

/// `crate::x` is `x`; `super::x` in `a::b` is `a::x`; another crate's path stays as it is behind an empty segment.
fn resolve(path: &[String], here: &[String]) -> Vec<String> {
    let mut base = match path[0].as_str() {
        "crate" => return path[1..].to_vec(),
        "self" | "super" => here.to_vec(),
        _ => return [vec![String::new()], path.to_vec()].concat(),
    };
    let mut rest = path;
    while let Some(first) = rest.first() {
        match first.as_str() {
            "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        rest = &rest[1..];
    }
    base.extend(rest.iter().cloned());
    base
}

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Every file of `src` with the module it is.
fn house() -> Vec<(PathBuf, Vec<String>, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let inside = file.strip_prefix(&root).expect("under src").with_extension("");
            let module = inside.iter().map(|p| p.to_string_lossy().into_owned()).collect();
            let text = fs::read_to_string(&file).expect("a source file");
            (file, module, text)
        })
        .collect()
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for (file, module, text) in house() {
        let Some((room, allowed)) = ROOMS.iter().find(|(r, _)| module[0] == *r) else { continue };
        for Used { path, line } in used(&module, &text) {
            let Some(other) = path.first().filter(|p| ROOMS.iter().any(|(r, _)| r == p)) else { continue };
            let part = path.get(1).map(String::as_str).unwrap_or_default();
            let screen = *room == "tui" && other == "control" && !TUI_OF_CONTROL.contains(&part);
            if (other != room && !allowed.contains(&other.as_str())) || screen {
                wrong.push(format!("{}:{line}: {room} imports {}", file.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "see the table in src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn parts_of_a_link_do_not_know_each_other() {
    let mut wrong = Vec::new();
    for (file, module, text) in house() {
        let part = match module.as_slice() {
            [room, part, ..] if room == "engine" && SEPARATE.contains(&part.as_str()) => part,
            _ => continue,
        };
        for Used { path, line } in used(&module, &text) {
            if let [room, other, ..] = path.as_slice()
                && room == "engine"
                && other != part
                && !ALONG_THE_ARROW.contains(&(part.as_str(), other.as_str()))
                && (SEPARATE.contains(&other.as_str()) || ["link", "job", "supervisor"].contains(&other.as_str()))
            {
                wrong.push(format!("{}:{line}: {part} imports {}", file.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "they meet in engine/link.rs:\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_the_room_that_owns_them() {
    let mut wrong = Vec::new();
    for (file, module, text) in house() {
        for Used { path, line } in used(&module, &text) {
            let Some(name) = path.first().filter(|p| p.is_empty()).and(path.get(1)) else { continue };
            if let Some((room, _)) = OWNED.iter().find(|(_, crates)| crates.contains(&name.as_str()))
                && module[0] != *room
            {
                wrong.push(format!("{}:{line}: only {room} knows {name}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_net_dials() {
    let mut wrong = Vec::new();
    for (file, module, text) in house() {
        if module[0] != "engine" || module.get(1).is_some_and(|p| p == "net") {
            continue;
        }
        // Tests within the engine talk to servers of their own.
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for Used { path, line } in used(&module, text) {
            let end: BTreeSet<&str> = path.iter().rev().take(2).map(String::as_str).collect();
            if end == BTreeSet::from(["TcpStream", "connect"]) || end == BTreeSet::from(["Client", "open"]) {
                wrong.push(format!("{}:{line}: {}", file.display(), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "dial through engine/net.rs:\n{}", wrong.join("\n"));
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let text = r##"
        //! use crate::comment;
        use crate::{model::{Db, ids::{self, Offset}}, wire::*};
        use super::events::EventSink as Sink;
        const S: &str = "crate::string::no";
        const R: &str = r#"crate::raw::no"#;
        fn f<'a>(c: char) -> &'a str { let q = '"'; crate::engine::net::dial(super::super::tui::App) }
        mod tests { use super::super::spool; mod deeper { use super::super::here; } }
        fn g() { super::after::call(); std::net::TcpStream::connect() }
    "##;
    let module = ["engine".to_owned(), "replica".to_owned()];
    let found: Vec<String> = used(&module, text).into_iter().map(|u| u.path.join("::")).collect();
    assert_eq!(
        found,
        [
            "model::Db",
            "model::ids::self",
            "model::ids::Offset",
            "wire",
            "engine::events::EventSink",
            "engine::net::dial",
            "tui::App",
            "engine::spool",
            "engine::replica::here",
            "engine::after::call",
            "::std::net::TcpStream::connect",
        ]
    );
}
