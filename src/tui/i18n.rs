//! The languages of the screen. Every text that a user sees is a key of the tables under `assets/locales`; both have
//! the same keys and the same `{placeholders}`, which a test holds.

use std::{collections::HashMap, fmt::Display, sync::OnceLock};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lang {
    #[default]
    En,
    ZhCn,
}

const TABLES: [&str; 2] =
    [include_str!("../../assets/locales/en.toml"), include_str!("../../assets/locales/zh-CN.toml")];

/// What the engine says in English, for the languages that have words of their own for it.
const ENGINE: &str = include_str!("../../assets/locales/zh-CN.engine.toml");

impl Lang {
    pub const ALL: [Lang; 2] = [Lang::En, Lang::ZhCn];

    /// From `--lang` or a locale's name: `zh-CN`, `zh_CN.UTF-8`, `en`, `C`. `None` where the language isn't one of ours.
    pub fn parse(text: &str) -> Option<Lang> {
        let text = text.to_ascii_lowercase();
        let language = text.split(['-', '_', '.', '@']).next().unwrap_or_default();
        match language {
            "zh" | "cn" | "chinese" => Some(Lang::ZhCn),
            "en" | "c" | "posix" | "english" => Some(Lang::En),
            _ => None,
        }
    }

    /// The first of `LC_ALL`, `LC_MESSAGES`, `LANG` that is set decides; English where it names no language of ours.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Lang {
        ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .find_map(|name| get(name).filter(|v| !v.is_empty()))
            .and_then(|v| Lang::parse(&v))
            .unwrap_or_default()
    }

    pub fn other(self) -> Lang {
        match self {
            Lang::En => Lang::ZhCn,
            Lang::ZhCn => Lang::En,
        }
    }

    /// As the header shows it.
    pub fn tag(self) -> &'static str {
        match self {
            Lang::En => "EN",
            Lang::ZhCn => "中文",
        }
    }

    /// The text of `key`; the key itself where the table has none, so that the lack is seen.
    pub fn t(self, key: &str) -> &'static str {
        match table(self).get_key_value(key) {
            Some((_, text)) => text,
            None => leak(key),
        }
    }

    /// What stands in this language for something that the engine says; `None` where its own words do.
    pub fn engine(self, key: &str) -> Option<&'static str> {
        static PARSED: OnceLock<HashMap<String, String>> = OnceLock::new();
        match self {
            Lang::En => None,
            Lang::ZhCn => PARSED.get_or_init(|| parse(ENGINE)).get(key).map(String::as_str),
        }
    }

    /// The text of `key` with its `{placeholders}` filled.
    pub fn f(self, key: &str, values: &[(&str, &dyn Display)]) -> String {
        let mut text = self.t(key).to_owned();
        for (name, value) in values {
            text = text.replace(&format!("{{{name}}}"), &value.to_string());
        }
        text
    }
}

/// All keys of a language with their texts.
pub fn table(lang: Lang) -> &'static HashMap<String, String> {
    static PARSED: OnceLock<[HashMap<String, String>; 2]> = OnceLock::new();
    &PARSED.get_or_init(|| TABLES.map(parse))[lang as usize]
}

fn parse(source: &str) -> HashMap<String, String> {
    fn flatten(prefix: &str, value: toml::Value, out: &mut HashMap<String, String>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    flatten(&path, value, out);
                }
            }
            toml::Value::String(text) => {
                out.insert(prefix.to_owned(), text);
            }
            _ => {}
        }
    }
    let mut out = HashMap::new();
    // the tables are compiled in and a test parses them; an empty one shows the keys instead of the texts
    let parsed = source.parse::<toml::Table>().unwrap_or_default();
    flatten("", toml::Value::Table(parsed), &mut out);
    out
}

/// Keys that no table has, each kept once: only a mistake in the program gets here.
fn leak(key: &str) -> &'static str {
    static MISSING: OnceLock<std::sync::Mutex<HashMap<String, &'static str>>> = OnceLock::new();
    let mut missing = MISSING.get_or_init(Default::default).lock().unwrap_or_else(|e| e.into_inner());
    if let Some(text) = missing.get(key) {
        return text;
    }
    let text: &'static str = Box::leak(key.to_owned().into_boxed_str());
    missing.insert(key.to_owned(), text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn placeholders(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name).collect()
    }

    #[test]
    fn tables_parse() {
        for source in TABLES {
            source.parse::<toml::Table>().expect("a locale table");
        }
    }

    #[test]
    fn both_languages_have_the_same_keys_and_placeholders() {
        let (en, zh) = (table(Lang::En), table(Lang::ZhCn));
        let keys = |t: &'static HashMap<String, String>| t.keys().map(String::as_str).collect::<BTreeSet<_>>();
        assert_eq!(keys(en).difference(&keys(zh)).collect::<Vec<_>>(), Vec::<&&str>::new(), "only in en");
        assert_eq!(keys(zh).difference(&keys(en)).collect::<Vec<_>>(), Vec::<&&str>::new(), "only in zh-CN");
        for (key, text) in en {
            assert_eq!(placeholders(text), placeholders(&zh[key]), "placeholders of {key}");
            assert!(!zh[key].is_empty() && !text.is_empty(), "{key} is empty");
        }
    }

    /// Every key that the sources name exists, and no key of the tables is unused.
    #[test]
    fn what_opens_a_conflict_has_words() {
        for lang in [Lang::En, Lang::ZhCn] {
            for cause in crate::model::conflict::CAUSES {
                let key = format!("cause.{cause}");
                assert_ne!(lang.t(&key), key);
            }
        }
    }

    #[test]
    fn keys_named_in_the_sources_exist() {
        let mut named = BTreeSet::new();
        let mut sources = String::new();
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/tui"))];
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
        for call in [".t(\"", ".f(\""] {
            for rest in sources.split(call).skip(1) {
                if let Some((key, _)) = rest.split_once('"') {
                    named.insert(key.to_owned());
                }
            }
        }
        let missing: Vec<_> = named.iter().filter(|k| k.contains('.') && !table(Lang::En).contains_key(*k)).collect();
        assert!(missing.is_empty(), "not in the tables: {missing:?}");
        let unused: Vec<_> = table(Lang::En)
            .keys()
            .filter(|k| {
                let head = k.rsplit_once('.').map(|(h, _)| h).unwrap_or(k);
                !sources.contains(&format!("\"{k}\"")) && !sources.contains(&format!("\"{head}.{{"))
            })
            .collect();
        assert!(unused.is_empty(), "in the tables, named nowhere: {unused:?}");
    }

    #[test]
    fn language_of_the_environment() {
        let env = |pairs: &'static [(&str, &str)]| {
            Lang::from_environment(|n| pairs.iter().find(|(k, _)| *k == n).map(|(_, v)| v.to_string()))
        };
        assert_eq!(env(&[("LANG", "zh_CN.UTF-8")]), Lang::ZhCn);
        assert_eq!(env(&[("LANG", "zh_CN.UTF-8"), ("LC_ALL", "C")]), Lang::En);
        assert_eq!(env(&[("LANG", "fr_FR.UTF-8")]), Lang::En);
        assert_eq!(env(&[]), Lang::En);
    }
}
