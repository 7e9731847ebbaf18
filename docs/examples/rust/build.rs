// SPDX-License-Identifier: MIT
//! Asks pkg-config where libkvtile is.
use std::process::Command;

fn main() {
    let found = Command::new("pkg-config").args(["--libs-only-L", "kvtile"]).output().expect("pkg-config is needed");
    assert!(found.status.success(), "libkvtile is not installed: {}", String::from_utf8_lossy(&found.stderr));
    for word in String::from_utf8_lossy(&found.stdout).split_whitespace() {
        let folder = word.trim_start_matches("-L");
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    println!("cargo:rustc-link-lib=kvtile");
}
