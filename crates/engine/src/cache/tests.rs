//! The cache of compiled modules on disk: who may read it, what a damaged or foreign file does.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn engine() -> Engine {
    Engine::default()
}

fn module(engine: &Engine) -> Module {
    Module::new(engine, wat::parse_str("(module (func (export \"f\")))").unwrap()).unwrap()
}

fn safe_dir(parent: &tempfile::TempDir) -> PathBuf {
    parent.path().join("a/b")
}

fn only_file(dir: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_module_is_kept_for_this_user_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = safe_dir(&parent);
    let engine = engine();
    let cache = CodeCache::open(&dir).unwrap();
    assert!(cache.get(&engine, "ab").is_none());
    cache.put("ab", &module(&engine));
    assert!(cache.get(&engine, "ab").unwrap().get_export("f").is_some());
    assert!(cache.get(&engine, "cd").is_none());
    assert_eq!((mode(&dir), mode(&only_file(&dir))), (0o700, 0o600));
}

#[test]
fn code_of_another_engine_is_not_found() {
    let parent = tempfile::tempdir().unwrap();
    let engine = engine();
    let cache = CodeCache::open(&safe_dir(&parent)).unwrap();
    cache.put("ab", &module(&engine));
    let mut config = wasmtime::Config::new();
    config.consume_fuel(true);
    assert!(cache.get(&Engine::new(&config).unwrap(), "ab").is_none());
}

#[test]
fn a_damaged_file_is_not_used_and_is_replaced() {
    let parent = tempfile::tempdir().unwrap();
    let dir = safe_dir(&parent);
    let engine = engine();
    let cache = CodeCache::open(&dir).unwrap();
    cache.put("ab", &module(&engine));
    let path = only_file(&dir);
    let whole = fs::read(&path).unwrap();
    for damaged in [&whole[..whole.len() / 2], &whole[..20], b""] {
        fs::write(&path, damaged).unwrap();
        assert!(cache.get(&engine, "ab").is_none());
    }
    let mut flipped = whole;
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&path, flipped).unwrap();
    assert!(cache.get(&engine, "ab").is_none());
    cache.put("ab", &module(&engine));
    assert!(cache.get(&engine, "ab").is_some());
}

#[test]
fn what_others_can_write_is_not_used() {
    let parent = tempfile::tempdir().unwrap();
    let dir = safe_dir(&parent);
    let engine = engine();
    let cache = CodeCache::open(&dir).unwrap();
    cache.put("ab", &module(&engine));
    let path = only_file(&dir);
    set_mode(&path, 0o620);
    assert!(cache.get(&engine, "ab").is_none());
    set_mode(&path, 0o600);
    assert!(cache.get(&engine, "ab").is_some());

    set_mode(&dir, 0o770);
    let error = CodeCache::open(&dir).unwrap_err();
    assert!(error.to_string().contains("its mode is 770, needed is 700"), "{error}");
    set_mode(&dir, 0o700);

    let link = parent.path().join("link");
    symlink(&dir, &link).unwrap();
    assert!(matches!(CodeCache::open(&link), Err(CacheError::NotAFolder)));
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(CodeCache::open(&file).is_err());
}

#[test]
fn the_oldest_files_go_first() {
    let parent = tempfile::tempdir().unwrap();
    let dir = safe_dir(&parent);
    let engine = engine();
    let module = module(&engine);
    let cache = CodeCache::open(&dir).unwrap();
    for index in 0..FILES_MAX {
        cache.put(&format!("{index:02}"), &module);
    }
    let old = cache.path(&engine, "07");
    File::options().write(true).open(&old).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    cache.put("new", &module);
    assert!(!old.exists());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), FILES_MAX);
}
