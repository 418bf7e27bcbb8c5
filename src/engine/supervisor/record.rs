//! A job on disk: `jobs/<id>.json` in the state folder, mode 0600, replaced as a whole.
//!
//! It holds what is needed to go on after a restart, so also an account that the user chose to give inline (in the
//! job file, or typed in the wizard without another place for it): without it a restarted engine could not resume. An
//! account that is to be kept nowhere is left out, and has to be typed again after a restart.

use crate::model::{Job, JobId, LinkState};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Raised when an older program would misread the file.
const VERSION: u32 = 1;

/// What the user wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Its links run, also after a restart.
    Running,
    Paused,
    /// Its control keys are gone from both sides.
    Ended,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub id: JobId,
    pub job: Job,
    pub wanted: Wanted,
    /// Whether its links have been attached before, so that it is resumed rather than begun.
    pub begun: bool,
    /// They have never stood yet, or it is not known whether they have: nothing was copied, and what control keys there are
    /// stand for nothing.
    #[serde(default)]
    pub only_tried: bool,
    /// How the last try to start it failed, so that a restart does not hide it.
    #[serde(default)]
    pub failure: Option<(LinkState, String)>,
}

impl Record {
    pub fn new(job: Job) -> Record {
        Record {
            version: VERSION,
            id: JobId::draw(),
            job,
            wanted: Wanted::Paused,
            begun: false,
            only_tried: false,
            failure: None,
        }
    }
}

/// The job records of a state folder.
#[derive(Debug, Clone)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    pub fn open(state: &Path) -> io::Result<Records> {
        let dir = state.join("jobs");
        private_dir(&dir)?;
        Ok(Records { dir })
    }

    /// All records that can be read, by name of the job. A file that can't be read is left where it is and told.
    pub fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read_json::<Record>(&path) {
                Ok(Some(record)) if record.version <= VERSION => records.push(record),
                Ok(Some(record)) => {
                    tracing::error!(?path, version = record.version, "a newer program wrote this job; left alone")
                }
                Ok(None) => {}
                Err(error) => tracing::error!(?path, %error, "this job's file can't be read; left alone"),
            }
        }
        records.sort_by(|a, b| a.job.name.cmp(&b.job.name));
        Ok(records)
    }

    pub fn save(&self, record: &Record) -> io::Result<()> {
        let mut kept = record.clone();
        for account in kept.job.unkept_accounts() {
            *account = account.withheld();
        }
        write_json(&self.dir.join(format!("{}.json", record.id)), &kept)
    }

    pub fn remove(&self, id: &JobId) -> io::Result<()> {
        match fs::remove_file(self.dir.join(format!("{id}.json"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Makes a folder of mode 0700, with those above it.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces a file as a whole: a crash leaves the old or the new, never a part.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(value)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The new name itself has to reach the disk as well.
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// `None` where there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountSource, job::file, secret::Inline};

    fn job(name: &str) -> Job {
        file::parse(
            &format!("name='{name}'\nsource={{address='a:1', account='u:secret'}}\ntarget={{address='b:1'}}"),
            "t",
        )
        .unwrap()
    }

    #[test]
    fn a_record_comes_back_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let (b, a) = (Record::new(job("b")), Record::new(job("a")));
        for record in [&b, &a] {
            records.save(record).unwrap();
        }
        assert_eq!(records.load().unwrap(), [a.clone(), b]);
        let mode = |p: &Path| std::os::unix::fs::MetadataExt::mode(&fs::metadata(p).unwrap()) & 0o777;
        assert_eq!(mode(&dir.path().join("jobs")), 0o700);
        assert_eq!(mode(&dir.path().join(format!("jobs/{}.json", a.id))), 0o600);
        records.remove(&a.id).unwrap();
        records.remove(&a.id).unwrap();
        assert_eq!(records.load().unwrap().len(), 1);
    }

    #[test]
    fn an_account_that_is_kept_nowhere_is_not_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let mut record = Record::new(job("a"));
        record.job.source.account = AccountSource::Inline(Inline::unkept("u:hunter2"));
        records.save(&record).unwrap();
        assert!(!record.job.lacks_account(), "it stays in memory");
        let text = fs::read_to_string(dir.path().join(format!("jobs/{}.json", record.id))).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let [found] = &records.load().unwrap()[..] else { panic!("one record") };
        assert!(found.job.lacks_account());
        assert_eq!(found.job.source.account, AccountSource::Inline(Inline::unkept("")));
    }

    #[test]
    fn one_broken_file_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.save(&Record::new(job("a"))).unwrap();
        fs::write(dir.path().join("jobs/zz.json"), "{").unwrap();
        fs::write(dir.path().join("jobs/zz.tmp"), "{").unwrap();
        assert_eq!(records.load().unwrap().len(), 1);
    }
}
