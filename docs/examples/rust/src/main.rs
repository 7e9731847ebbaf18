// SPDX-License-Identifier: MIT
//! kvtile in Rust, through the C ABI: rows of one KV head are stored and read back.
//! Structs that the library fills are kept as bytes of its own size; those that the program fills are written out as the header has them.
use std::ffi::{c_void, CStr};
use std::mem::size_of;
use std::os::raw::{c_char, c_int};

#[repr(C)]
#[derive(Default)]
struct SideOptions {
    rotation: c_int,
    centring: c_int,
    effort: c_int,
    fp8_block: u32,
    fp8_scale: c_int,
    fp8_tensor_scale: f32,
}

#[repr(C)]
#[derive(Default)]
struct Spec {
    size: usize,
    k_scheme: c_int,
    v_scheme: c_int,
    k_dim: u32,
    v_dim: u32,
    kv_heads: u32,
    tiers: u32,
    k_options: SideOptions,
    v_options: SideOptions,
    rope_scheme: c_int,
    rope_dim: u32,
    rope_options: SideOptions,
}

#[repr(C)]
struct Pages {
    base: *mut c_void,
    table: *const *mut c_void,
    stride: usize,
    count: usize,
}

#[repr(C, align(8))]
struct Layout([u8; 1024]); // kvt_layout is smaller, and opaque here

#[repr(C)]
struct SchemeInfo {
    scheme: c_int,
}

extern "C" {
    fn kvt_status_text(status: c_int) -> *const c_char;
    fn kvt_scheme_find(name: *const c_char) -> *const SchemeInfo;
    fn kvt_layout_init(layout: *mut Layout, spec: *const Spec) -> c_int;
    fn kvt_layout_bytes(layout: *const Layout, tokens: usize, bytes: *mut usize) -> c_int;
    fn kvt_head_pages(layout: *const Layout, base: *mut c_void, tokens: usize, head: u32, pages: *mut Pages) -> c_int;
    fn kvt_write(l: *const Layout, side: c_int, p: *const Pages, first: usize, n: usize, rows: *const c_void, dtype: c_int, stride: isize) -> c_int;
    fn kvt_read(l: *const Layout, side: c_int, p: *const Pages, first: usize, n: usize, rows: *mut c_void, dtype: c_int, stride: isize) -> c_int;
}

const F32: c_int = 1;
const KEYS: c_int = 0;

fn check(status: c_int) -> Result<(), String> {
    let text = unsafe { CStr::from_ptr(kvt_status_text(status)) }; // static, never NULL
    if status == 0 { Ok(()) } else { Err(text.to_string_lossy().into_owned()) }
}

fn main() -> Result<(), String> {
    let (tokens, dim) = (100, 64);
    let kv4 = unsafe { (*kvt_scheme_find(b"kv4\0".as_ptr().cast())).scheme };
    let mut spec = Spec { size: size_of::<Spec>(), k_scheme: kv4, v_scheme: kv4, k_dim: dim as u32, v_dim: dim as u32, kv_heads: 1, ..Default::default() };
    spec.k_options.rotation = 64;
    let keys: Vec<f32> = (0..tokens * dim).map(|i| (i as f32 * 0.37).sin()).collect();
    let (mut back, stride) = (vec![0f32; tokens * dim], (dim * size_of::<f32>()) as isize);
    let mut layout = Layout([0; 1024]);
    let mut pages = Pages { base: std::ptr::null_mut(), table: std::ptr::null(), stride: 0, count: 0 };
    let mut bytes = 0;
    unsafe {
        check(kvt_layout_init(&mut layout, &spec))?;
        check(kvt_layout_bytes(&layout, tokens, &mut bytes))?;
    }
    let mut memory = vec![0u8; bytes];
    unsafe {
        check(kvt_head_pages(&layout, memory.as_mut_ptr().cast(), tokens, 0, &mut pages))?;
        check(kvt_write(&layout, KEYS, &pages, 0, tokens, keys.as_ptr().cast(), F32, stride))?;
        check(kvt_read(&layout, KEYS, &pages, 0, tokens, back.as_mut_ptr().cast(), F32, stride))?;
    }
    let (error, all) = keys.iter().zip(&back).fold((0.0, 0.0), |(e, a), (x, y)| (e + (x - y) * (x - y), a + x * x));
    let relative = (error / all).sqrt();
    println!("{tokens} keys and values in {bytes} bytes, keys with an error of {relative:.3}");
    if relative < 0.15 { Ok(()) } else { Err("that is more than kv4 may lose".into()) }
}
