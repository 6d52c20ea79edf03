//! Keeps the secrets of a process from other processes of its user, above all from the commands that a worker runs.
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

use nix::sys::prctl;

use crate::files::location::Cloud;

unsafe extern "C" {
    /// The C library's environment: a list of `NAME=value` that ends with a null pointer.
    static environ: *const *mut c_char;
}

/// Makes the memory and the open files of this process unreadable to others of the same user (it is not dumpable, so it
/// leaves no core dump either), and erases its secrets from `/proc/PID/environ`: the values of all `LEASEHOLD_`
/// variables and of the credentials of file stores. The variables themselves keep their values.
///
/// Call it first in `main`, while the process has one thread.
pub fn protect() {
    if let Err(e) = prctl::set_dumpable(false) {
        crate::log::say(format_args!("warning: other processes of this user may read this one's memory: {e}"));
    }
    let clouds = [Cloud::S3, Cloud::Gcs, Cloud::Azure];
    let is_secret = |name: &OsStr| {
        name.as_bytes().starts_with(b"LEASEHOLD_")
            || clouds.iter().any(|cloud| cloud.secrets().iter().any(|secret| *secret == name))
    };
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_secret(name)) {
        // SAFETY: the process has one thread, so nothing else uses the environment. Setting a variable puts a copy of
        // it in the list; the memory that the list pointed at before is then used only by the kernel, which shows it in
        // /proc. It is as long as its terminated string.
        unsafe {
            let Some(before) = entry(&name) else { continue };
            std::env::set_var(&name, &value);
            if entry(&name).is_none_or(|now| std::ptr::eq(now, before)) {
                continue;
            }
            let value = before.add(name.len() + 1);
            for at in 0..CStr::from_ptr(value).count_bytes() {
                value.add(at).write_volatile(0);
            }
        }
    }
}

/// The entry of a variable in the environment's list.
///
/// # Safety
/// No other thread may change the environment.
unsafe fn entry(name: &OsStr) -> Option<*mut c_char> {
    // SAFETY: the list and its strings are terminated, and nobody changes them meanwhile.
    unsafe {
        let mut list = environ;
        while !list.is_null() && !(*list).is_null() {
            let text = CStr::from_ptr(*list).to_bytes();
            if text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")) {
                return Some(*list);
            }
            list = list.add(1);
        }
    }
    None
}
