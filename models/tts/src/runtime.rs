//! ONNX Runtime, loaded from a file given at start. Its version is checked before the `ort` crate sees it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Lets all threads share one heap: one per thread would keep each thread's peak. Call before threads are started.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Loads the library at `path` for `ort`. Returns its version.
///
/// # Errors
/// One line for people: not there, not ONNX Runtime, or too old.
pub fn load(path: &Path) -> Result<String, String> {
    let version = version(path)?;
    let usable = version
        .strip_prefix("1.")
        .and_then(|rest| rest.split('.').next())
        .and_then(|minor| minor.parse::<u32>().ok())
        .is_some_and(|minor| minor >= ort::MINOR_VERSION);
    if !usable {
        return Err(format!(
            "{}: ONNX Runtime {version} is too old, 1.{} or a later 1.x is needed; `attendant models fetch` brings one",
            path.display(),
            ort::MINOR_VERSION
        ));
    }
    ort::init_from(path)
        .map_err(|e| format!("{}: {e}", path.display()))?
        .with_telemetry(false)
        .commit();
    Ok(version)
}

/// What the library at `path` says of itself.
fn version(path: &Path) -> Result<String, String> {
    // A bare name would be searched for along the library path; a file is meant.
    let path = path
        .canonicalize()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let file =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| "path contains a zero byte".to_owned())?;
    // SAFETY: `file` is a C string. The library's initialisers run, as they would at `ort`'s own loading; it stays
    // loaded, since `ort` takes the same one next.
    let library = unsafe { libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return Err(format!(
            "{}: not a library of this machine ({})",
            path.display(),
            last_error()
        ));
    }
    // SAFETY: `library` is open and the name a C string.
    let symbol = unsafe { libc::dlsym(library, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err(format!("{}: a library, but not ONNX Runtime", path.display()));
    }
    // SAFETY: every ONNX Runtime has exported this function with this signature, and the base table it returns, static
    // in the library, has not changed since 1.0.
    unsafe {
        let get_base: unsafe extern "C" fn() -> *const ort::sys::OrtApiBase = std::mem::transmute(symbol);
        let base = get_base();
        if base.is_null() {
            return Err(format!("{}: ONNX Runtime without an interface", path.display()));
        }
        Ok(CStr::from_ptr(((*base).GetVersionString)())
            .to_string_lossy()
            .into_owned())
    }
}

fn last_error() -> String {
    // SAFETY: returns null or a C string valid until the next dl call of this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".into();
    }
    // SAFETY: not null, see above; copied at once.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong() {
        assert!(load(Path::new("/nowhere/libonnxruntime.so")).is_err());
        assert!(
            load(Path::new("/etc/hostname"))
                .unwrap_err()
                .contains("not a library")
        );
        let text = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = text
            .split_whitespace()
            .find(|w| w.contains("libc.so") || w.contains("libc-"))
            .unwrap();
        assert!(load(Path::new(libc)).unwrap_err().contains("not ONNX Runtime"));
    }
}
