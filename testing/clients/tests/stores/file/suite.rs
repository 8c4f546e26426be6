//! What every store has to pass.

use std::{fs, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tower_refresh::{
    BoxFuture,
    store::{
        FileStore, FileStores, Keyring,
        conformance::{FamilySubject, Subject},
    },
};

struct Files {
    folder: TempDir,
    keys: Option<Keyring>,
}

impl Files {
    fn new(keys: Option<Keyring>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keys }
    }

    fn records(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    /// A handle like another process's.
    fn stores(&self) -> FileStores {
        let stores = FileStores::open(self.records()).unwrap();
        match &self.keys {
            Some(keys) => stores.sealed(keys.clone()),
            None => stores,
        }
    }
}

impl Subject for Files {
    type Store = FileStore;

    fn open(&self, name: &str) -> BoxFuture<'_, FileStore> {
        let store = self.stores().try_store(name).unwrap();
        Box::pin(async { store })
    }

    fn broken(&self) -> Result<FileStore, &'static str> {
        let store = self.stores().try_store("broken").unwrap();
        fs::remove_dir_all(self.records()).unwrap();
        Ok(store)
    }

    /// The folder is removed, and brought back from a copy: nothing else takes a lock of the
    /// system from its holder.
    fn expire(&self, _: &str) -> BoxFuture<'_, Result<(), &'static str>> {
        let old = self.folder.path().join("old");
        fs::rename(self.records(), &old).unwrap();
        fs::create_dir(self.records()).unwrap();
        for entry in fs::read_dir(old).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.records().join(entry.file_name())).unwrap();
        }
        Box::pin(async { Ok(()) })
    }

    fn lease_time(&self) -> Result<Duration, &'static str> {
        Err("a lock of the system has no time limit")
    }
}

impl FamilySubject for Files {
    type Stores = FileStores;

    fn family(&self) -> BoxFuture<'_, FileStores> {
        Box::pin(async { self.stores() })
    }

    fn count(&self) -> BoxFuture<'_, Result<usize, &'static str>> {
        Box::pin(async { Ok(fs::read_dir(self.records()).unwrap().count()) })
    }
}

mod plain {
    tower_refresh::stores_conformance!(super::Files::new(None));
}

mod sealed {
    tower_refresh::stores_conformance!(super::Files::new(Some(super::Keyring::new([7; 32]))));
}
