//! The console's own files: the inventory of instances, drafts of the wizard, the settings. No secret is in any of
//! them; a password that was typed lives in memory until the engine has it.
//!
//! confy truncates a file before it writes it, so each is stored beside its place (0600) and renamed over it.

use crate::model::{ExistingKeys, Topology, job::ReadFrom};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What went wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("could not write {path}: {source}; check the folder's rights and free space")]
    Write { path: String, source: io::Error },
    #[error("could not store {path}: {source}; check the folder's rights and free space")]
    Confy { path: String, source: confy::ConfyError },
    #[error("{0:?} can't be the name of a file: use letters, digits, `-`, `_` and `.`")]
    Name(String),
}

/// Everything that was found at the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    pub inventory: Inventory,
    pub drafts: Vec<Draft>,
    pub settings: Settings,
    /// Files that could not be read, with why.
    pub complaints: Vec<String>,
}

/// `config/console.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub lang: Option<String>,
    pub theme: Option<String>,
}

/// `config/instances.toml`: the instances that the wizard offers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    pub instances: Vec<Saved>,
}

/// One side of the wizard's first step without its secret; in the inventory it has an id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    pub id: String,
    pub region: String,
    pub address: String,
    pub topology: Topology,
    /// Behind a proxy: the nodes that are read from.
    pub shards: String,
    pub master_name: String,
    pub account_from: AccountFrom,
    /// The variable, file or command; never the account itself.
    pub account_place: String,
    pub tls: TlsChoice,
    pub ca_file: String,
    /// A client's certificate and key, for servers that ask for one.
    pub cert_file: String,
    pub key_file: String,
    /// The name in the server's certificate, where it is not the host's.
    pub server_name: String,
    pub read_from: ReadFrom,
    /// The sentinels' own account.
    pub sentinel_from: SentinelFrom,
    pub sentinel_place: String,
}

/// Where the account of an instance comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountFrom {
    /// Typed here. The engine keeps it with the job, readable by its user alone; no file of the console does.
    #[default]
    Typed,
    /// Typed here and kept nowhere: asked for again after a restart of the engine.
    Unkept,
    Environment,
    File,
    Command,
    /// The server asks for none.
    Nowhere,
}

impl AccountFrom {
    pub const ALL: [AccountFrom; 6] = [
        AccountFrom::Typed,
        AccountFrom::Unkept,
        AccountFrom::Environment,
        AccountFrom::File,
        AccountFrom::Command,
        AccountFrom::Nowhere,
    ];

    /// Whether the account itself is an answer, and not where to find it.
    pub fn is_typed(self) -> bool {
        matches!(self, AccountFrom::Typed | AccountFrom::Unkept)
    }

    /// Its locale key.
    pub fn label(self) -> &'static str {
        match self {
            AccountFrom::Typed => "account.typed",
            AccountFrom::Unkept => "account.unkept",
            AccountFrom::Environment => "account.environment",
            AccountFrom::File => "account.file",
            AccountFrom::Command => "account.command",
            AccountFrom::Nowhere => "account.nowhere",
        }
    }
}

/// The same for the sentinels, which mostly ask for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SentinelFrom(pub AccountFrom);

impl Default for SentinelFrom {
    fn default() -> Self {
        SentinelFrom(AccountFrom::Nowhere)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsChoice {
    #[default]
    Off,
    /// Certificates that this machine trusts.
    System,
    OwnCa,
}

impl TlsChoice {
    pub const ALL: [TlsChoice; 3] = [TlsChoice::Off, TlsChoice::System, TlsChoice::OwnCa];

    /// Its locale key.
    pub fn label(self) -> &'static str {
        match self {
            TlsChoice::Off => "tls.off",
            TlsChoice::System => "tls.system",
            TlsChoice::OwnCa => "tls.own_ca",
        }
    }
}

/// `config/drafts/NAME.toml`: a wizard as it was left, without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Draft {
    pub name: String,
    /// 1 to 4.
    pub step: u8,
    pub existing_keys: ExistingKeys,
    /// Empty: all of them.
    pub databases: Vec<u32>,
    pub two_way: bool,
    pub forward_flush: bool,
    pub allow_resnapshot: bool,
    pub show_values: bool,
    pub max_ops_per_second: u64,
    pub source: Saved,
    pub target: Saved,
}

impl Default for Draft {
    fn default() -> Self {
        Draft {
            name: String::new(),
            step: 1,
            existing_keys: ExistingKeys::default(),
            databases: Vec::new(),
            two_way: true,
            forward_flush: false,
            allow_resnapshot: false,
            show_values: false,
            max_ops_per_second: 0,
            source: Saved::default(),
            target: Saved::default(),
        }
    }
}

/// The folders of the console's files.
#[derive(Debug, Clone)]
pub struct Store {
    /// `config`: the inventory, drafts, job files.
    pub config: PathBuf,
    /// `state`: exports.
    pub state: PathBuf,
}

impl Store {
    /// Reads what there is. A file that can't be read is left as it is and named in `complaints`.
    pub fn load(&self) -> Stored {
        let mut stored = Stored::default();
        match self.read(&self.config.join("instances.toml")) {
            Ok(inventory) => stored.inventory = inventory,
            Err(text) => stored.complaints.push(text),
        }
        match self.read(&self.config.join("console.toml")) {
            Ok(settings) => stored.settings = settings,
            Err(text) => stored.complaints.push(text),
        }
        let drafts = self.config.join("drafts");
        let mut paths: Vec<PathBuf> = fs::read_dir(&drafts)
            .map(|entries| {
                entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect()
            })
            .unwrap_or_default();
        paths.sort();
        for path in paths {
            match self.read(&path) {
                Ok(draft) => stored.drafts.push(draft),
                Err(text) => stored.complaints.push(text),
            }
        }
        stored
    }

    fn read<T: DeserializeOwned + Serialize + Default>(&self, path: &Path) -> Result<T, String> {
        // confy creates what is missing; looking must not write
        if !path.exists() {
            return Ok(T::default());
        }
        confy::load_path(path).map_err(|e| format!("{}: {e}", path.display()))
    }

    pub fn save_inventory(&self, inventory: &Inventory) -> Result<(), StoreError> {
        store(&self.config.join("instances.toml"), inventory)
    }

    pub fn save_settings(&self, settings: &Settings) -> Result<(), StoreError> {
        store(&self.config.join("console.toml"), settings)
    }

    pub fn save_draft(&self, draft: &Draft) -> Result<(), StoreError> {
        store(&self.config.join("drafts").join(file_name(&draft.name, "toml")?), draft)
    }

    /// Removes a draft; one that is not there is no error.
    pub fn delete_draft(&self, name: &str) -> Result<(), StoreError> {
        let path = self.config.join("drafts").join(file_name(name, "toml")?);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(write_error(&path, source)),
            _ => Ok(()),
        }
    }

    /// Where `start NAME` finds the job.
    pub fn job_path(&self, name: &str) -> PathBuf {
        self.config.join("jobs").join(format!("{name}.toml"))
    }

    /// Writes a job file, 0600, over the one of that name.
    pub fn write_job(&self, name: &str, toml: &str) -> Result<PathBuf, StoreError> {
        file_name(name, "toml")?;
        let path = self.job_path(name);
        replace(&path, toml.as_bytes())?;
        Ok(path)
    }

    /// Writes lines to `exports/NAME` in the state folder, 0600.
    pub fn export(&self, name: &str, lines: &[String]) -> Result<PathBuf, StoreError> {
        let path = self.state.join("exports").join(file_name(name, "jsonl")?);
        let mut text = lines.join("\n");
        text.push('\n');
        replace(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// Whether a text can name a job: 1 to 64 letters, digits, `-`, `_`, `.`, and not begin with a dot.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn file_name(name: &str, extension: &str) -> Result<String, StoreError> {
    if is_name(name) { Ok(format!("{name}.{extension}")) } else { Err(StoreError::Name(name.to_owned())) }
}

fn write_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Write { path: path.display().to_string(), source }
}

fn prepare(path: &Path) -> Result<PathBuf, StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| write_error(folder, e))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(folder.join(format!(".{name}.{}.new", std::process::id())))
}

fn store<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let beside = prepare(path)?;
    confy::store_path_perms(&beside, value, fs::Permissions::from_mode(0o600))
        .map_err(|source| StoreError::Confy { path: path.display().to_string(), source })?;
    fs::rename(&beside, path).map_err(|e| write_error(path, e))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let beside = prepare(path)?;
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|e| write_error(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store { config: dir.path().join("config"), state: dir.path().join("state") };
        (dir, store)
    }

    #[test]
    fn what_was_saved_is_found_again_and_private() {
        let (_dir, store) = folders();
        let draft = Draft { name: "orders".into(), step: 2, databases: vec![0, 3], ..Draft::default() };
        let inventory = Inventory {
            instances: vec![Saved { id: "r-bp1abc".into(), address: "10.0.0.1:6379".into(), ..Saved::default() }],
        };
        store.save_draft(&draft).expect("draft");
        store.save_inventory(&inventory).expect("inventory");
        let found = store.load();
        assert_eq!((found.drafts, found.inventory, found.complaints), (vec![draft], inventory, vec![]));
        for path in ["config/instances.toml", "config/drafts/orders.toml"] {
            let path = store.config.parent().expect("root").join(path);
            assert_eq!(fs::metadata(path).expect("file").permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::metadata(&store.config).expect("folder").permissions().mode() & 0o777, 0o700);
        store.delete_draft("orders").expect("deleted");
        assert!(store.load().drafts.is_empty());
        // nothing is left beside the files
        assert_eq!(fs::read_dir(&store.config).expect("folder").count(), 2);
    }

    #[test]
    fn looking_writes_nothing_and_a_broken_file_is_named_not_lost() {
        let (_dir, store) = folders();
        assert_eq!(store.load(), Stored::default());
        assert!(!store.config.exists());
        fs::create_dir_all(&store.config).expect("folder");
        fs::write(store.config.join("instances.toml"), "instances = 3").expect("file");
        assert!(store.load().complaints[0].contains("instances.toml"));
        assert_eq!(fs::read_to_string(store.config.join("instances.toml")).expect("file"), "instances = 3");
    }

    #[test]
    fn a_name_stays_in_its_folder() {
        let (_dir, store) = folders();
        for name in ["../x", "", "a/b", ".hidden", "a b"] {
            assert!(matches!(store.write_job(name, ""), Err(StoreError::Name(_))), "{name}");
        }
    }
}
