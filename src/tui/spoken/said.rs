//! Sentences of the engine in another language: templates with `{names}` that are found in what the engine says, and
//! put into the sentence of the language. Names such as `{side}` or `{why}` are translated themselves.

use crate::{
    model::LinkState,
    tui::{i18n::Lang, jobs::state_label},
};
use std::{collections::HashMap, sync::OnceLock};

const TABLE: &str = include_str!("../../../assets/locales/zh-CN.said.toml");

/// A sentence in a sentence: how deep that may go.
const DEEPEST: usize = 4;

/// Names whose values may hold spaces.
const LONG: [&str; 15] = [
    "why",
    "text",
    "key",
    "seen",
    "doing",
    "items",
    "presented",
    "what",
    "cause",
    "remedy",
    "time",
    "from",
    "name",
    "address",
    "path",
];

/// Names whose values may be sentences with advice, or anything at all.
const NESTED: [&str; 4] = ["why", "text", "remedy", "key"];

struct Template {
    parts: Vec<Part>,
    words: String,
}

#[derive(Debug, PartialEq)]
enum Part {
    Words(String),
    Slot(String),
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut out = Vec::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        if !before.is_empty() {
            out.push(Part::Words(before.to_owned()));
        }
        out.push(Part::Slot(name.to_owned()));
        rest = after;
    }
    if !rest.is_empty() {
        out.push(Part::Words(rest.to_owned()));
    }
    out
}

/// The pairs of the table: the engine's sentence, the language's.
fn pairs() -> Vec<(String, String)> {
    let table: toml::Table = TABLE.parse().unwrap_or_default();
    let said = table.get("said").and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let text = |v: &toml::Value, key: &str| v.get(key).and_then(|t| t.as_str()).unwrap_or_default().to_owned();
    said.iter().map(|v| (text(v, "en"), text(v, "zh"))).collect()
}

/// Those with most words of their own first: they fit less by chance.
fn templates() -> &'static [Template] {
    static PARSED: OnceLock<Vec<Template>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let mut all: Vec<Template> =
            pairs().into_iter().map(|(en, words)| Template { parts: parts(&en), words }).collect();
        let own =
            |t: &Template| -> usize { t.parts.iter().map(|p| if let Part::Words(w) = p { w.len() } else { 0 }).sum() };
        all.sort_by_key(|t| std::cmp::Reverse(own(t)));
        all
    })
}

/// The values of a template's names in `text`; `None` where it is another sentence.
fn find<'a>(template: &'a Template, text: &'a str) -> Option<HashMap<&'a str, &'a str>> {
    let mut values = HashMap::new();
    let mut rest = text;
    let mut parts = template.parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Words(words) => rest = rest.strip_prefix(words.as_str())?,
            Part::Slot(name) => {
                let end = match parts.peek() {
                    None => rest.len(),
                    Some(Part::Words(words)) => {
                        let last = parts.len() == 1;
                        if last { rest.strip_suffix(words.as_str())?.len() } else { rest.find(words.as_str())? }
                    }
                    Some(Part::Slot(_)) => return None,
                };
                let value = &rest[..end];
                let long = LONG.contains(&name.as_str());
                // advice begins behind a semicolon: it is a sentence of its own
                let advised = value.contains("; ") && !NESTED.contains(&name.as_str());
                // one that begins with another sentence is that sentence's own
                let sentence = name == "address" && value.contains(": ");
                if value.is_empty() || advised || sentence || (!long && value.contains(' ')) {
                    return None;
                }
                values.insert(name.as_str(), value);
                rest = &rest[end..];
            }
        }
    }
    rest.is_empty().then_some(values)
}

fn value(name: &str, value: &str, lang: Lang, depth: usize) -> Option<String> {
    let word = |key: String| Some(lang.t(&key).to_owned()).filter(|t| *t != key);
    match name {
        "why" | "text" => translate(value, lang, depth + 1),
        "side" | "to" => word(format!("side.{value}")).map(|w| format!("{w}端")),
        "direction" => word(format!("direction.{value}")),
        "cause" => word(format!("cause.{}", value.replace(' ', "_"))),
        "items" => {
            value.split(", ").map(|id| word(format!("check.{id}"))).collect::<Option<Vec<_>>>().map(|w| w.join("、"))
        }
        "time" => Some(value.replace("min", "分钟").replace(" s", " 秒")),
        _ => Some(value.to_owned()),
    }
}

fn fill(template: &Template, text: &str, lang: Lang, depth: usize) -> Option<String> {
    let values = find(template, text)?;
    let said: HashMap<&str, Option<String>> =
        values.into_iter().map(|(name, raw)| (name, value(name, raw, lang, depth))).collect();
    let put = |words: &str| {
        let mut out = String::new();
        for part in parts(words) {
            match part {
                Part::Words(words) => out.push_str(&words),
                Part::Slot(name) => out.push_str(said.get(name.as_str())?.as_ref()?),
            }
        }
        Some(out)
    };
    let mut out = String::new();
    let mut rest = template.words.as_str();
    // brackets hold what may be left out; those of an address are written \[ and \]
    while let Some(at) = rest.find(['[', '\\']) {
        out.push_str(&put(&rest[..at])?);
        if let Some(after) = rest[at..].strip_prefix('\\') {
            let mut chars = after.chars();
            out.extend(chars.next());
            rest = chars.as_str();
            continue;
        }
        let (part, after) = rest[at + 1..].split_once(']')?;
        out.push_str(&put(part).unwrap_or_default());
        rest = after;
    }
    out.push_str(&put(rest)?);
    Some(out)
}

/// `text` in the language; `None` where it is none of the known sentences.
pub fn translate(text: &str, lang: Lang, depth: usize) -> Option<String> {
    if lang == Lang::En || depth > DEEPEST {
        return None;
    }
    let text = text.trim();
    if let Some(state) = LinkState::ALL.into_iter().find(|s| s.as_str() == text) {
        return Some(lang.t(&state_label(state)).to_owned());
    }
    if let Some(whole) = templates().iter().find_map(|t| fill(t, text, lang, depth)) {
        return Some(whole);
    }
    // what is the matter, then what to do about it
    for apart in ["; ", ": ", ". "] {
        for (at, _) in text.match_indices(apart) {
            let (what, advice) = (&text[..at], &text[at + apart.len()..]);
            let Some(what) = templates().iter().find_map(|t| fill(t, what, lang, depth)) else { continue };
            return Some(match translate(advice.trim_end_matches('.'), lang, depth + 1) {
                Some(advice) => format!("{what}；{advice}"),
                None => what,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zh(text: &str) -> String {
        translate(text, Lang::ZhCn, 0).unwrap_or_else(|| panic!("not said: {text}"))
    }

    #[test]
    fn sentences_are_whole_and_carry_their_values() {
        for (en, words) in [
            (
                "conflict on \"cart: 881\" (db0) settled: write beats delete, the target side's order stands, 2 rounds",
                "已修复 db0 的 \"cart: 881\"：写入优先于删除，以目标端的顺序为准，共 2 轮",
            ),
            (
                "writing: 10.0.0.1:6379 refused the connection; check that the server runs, its port, and that it binds \
                 this interface; trying again",
                "写入端连接断开（10.0.0.1:6379 拒绝连接；检查实例是否运行、端口是否正确、是否监听该网卡），正在重试",
            ),
            ("writing: something new; trying again", "写入端连接断开，正在重试"),
            (
                "the forward link can be away for 9 min before it needs a new copy: raise repl-backlog-size to 512mb at \
                 the source (r-bp1abc)",
                "正向链路中断 9 分钟以上需要重新全量复制；将源端（r-bp1abc）的 repl-backlog-size 调大到 512mb",
            ),
            ("no longer so: the reverse link is 12.5 s behind", "告警解除：反向链路延迟 12.5 秒"),
            (
                "no longer so: the forward link is not connected: 127.0.0.1:7 refuses writes: CLUSTERDOWN The cluster is down; mend \
                 the cluster: some slots are not served",
                "告警解除：正向链路未连接：127.0.0.1:7 拒绝写入（CLUSTERDOWN The cluster is down），稍后自动重试",
            ),
            (
                "keys have come to the target 10.0.0.1:7 since it was found empty, such as db0 \"early\": nothing has been copied; \
                 empty it and start the job again while nobody writes there yet, or choose the policy `merge`, which takes \
                 such keys along",
                "目标端 10.0.0.1:7 在检查为空之后又写入了键，例如 db0 \"early\"；尚未复制任何数据；清空目标端，在无人写入时重新启\
                 动作业；或选择“双向合并”，这些键会一并同步",
            ),
            (
                "the forward link has failed: the source no longer has its stream from offset 36009084 on: the backlog \
                 was too small for the time away; compare both sides with duplex verify, then start with a new copy \
                 (duplex start --discard-previous), or set policy.allow_resnapshot; a larger repl-backlog-size there \
                 makes the window longer",
                "正向链路同步失败：源端已不再保留位点 36009084 之后的复制流：离线时间超出了积压缓冲所能覆盖的范围；用 duplex \
                 verify 比较两端后重新全量（duplex start --discard-previous），或设置 policy.allow_resnapshot；调大该端的 \
                 repl-backlog-size 可延长续传窗口",
            ),
            ("precheck failed: target_empty, rights", "预检查失败：目标库为空、账号权限"),
            (
                "10.0.0.1:7 holds no control key of this job any more: it was flushed, replaced, or restored from a \
                 copy; compare both sides, then start with a new copy: duplex start --discard-previous",
                "10.0.0.1:7 上已没有该作业的控制键：实例被清空、更换，或由备份恢复；核对两端后重新全量复制：按 c \
                 重新配置，并勾选丢弃上次运行留下的控制键",
            ),
            (
                "the target has lost writes that it had acknowledged: it was restarted or failed over",
                "目标端丢失了已确认的写入：发生过重启或主从切换",
            ),
            (
                "the target holds 2 keys in db0, db3, such as db0 \"a; b\"",
                "目标端的 db0, db3 有 2 个键，例如 db0 \"a; b\"",
            ),
            (
                "10.0.0.1:7 is no address: x; write host:port, or [::1]:port for IPv6",
                "10.0.0.1:7 不是有效地址（x）；格式为 主机:端口，IPv6 为 [::1]:端口",
            ),
        ] {
            assert_eq!(zh(en), words);
        }
        assert_eq!(translate("a sentence that nobody knows", Lang::ZhCn, 0), None);
        assert_eq!(translate("both links have started", Lang::En, 0), None);
    }

    /// A sentence that the engine no longer says is dead weight, and a sign that a new one lacks its translation.
    #[test]
    fn each_sentence_is_one_of_the_engines() {
        let mut sources = String::new();
        let mut folders = ["/src/engine", "/src/control/client"]
            .map(|folder| std::path::PathBuf::from(format!("{}{folder}", env!("CARGO_MANIFEST_DIR"))))
            .to_vec();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("sources") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    sources.push_str(&std::fs::read_to_string(path).expect("source"));
                }
            }
        }
        // strings that go on in the next line
        let mut whole = String::with_capacity(sources.len());
        let mut rest = sources.as_str();
        while let Some((before, after)) = rest.split_once("\\\n") {
            whole.push_str(before);
            rest = after.trim_start();
        }
        whole.push_str(rest);
        let pairs = pairs();
        assert!(pairs.len() > 60, "{}", pairs.len());
        for (en, zh) in pairs {
            let parts = parts(&en);
            let longest = parts.iter().filter_map(|p| if let Part::Words(w) = p { Some(w.as_str()) } else { None });
            let longest = longest.max_by_key(|w| w.len()).expect("words").trim_matches([' ', ':', ';', '(', ')']);
            // "{n} rounds" and "was not" are put together by the engine
            let longest = longest.split(" it was").next().unwrap_or(longest);
            let longest = longest.split(" at the").next().unwrap_or(longest);
            assert!(whole.contains(longest), "the engine no longer says {longest:?} ({en})");
            for part in parts {
                if let Part::Slot(name) = part {
                    let left_out = ["remedy", "doing"].contains(&name.as_str());
                    assert!(left_out || zh.contains(&format!("{{{name}}}")), "{name} of {en}");
                }
            }
        }
    }
}
