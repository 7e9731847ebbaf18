/* SPDX-License-Identifier: MIT */
/* POSIX's calls for files by those of Windows, as far as the tools use them. Paths are in the code page of the program, which its manifest makes
 * UTF-8. */
#define _CRT_RAND_S /* rand_s */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <windows.h>

/* ---- errors ---- */

LONG NTAPI RtlGetLastNtStatus(void); /* of ntdll: no header of mingw-w64 has it */

static int fail_last_error(void)
{
    static const struct {
        DWORD error;
        int number;
    } known[] = {
        { ERROR_FILE_NOT_FOUND, ENOENT },      { ERROR_PATH_NOT_FOUND, ENOENT },    { ERROR_INVALID_NAME, ENOENT },
        { ERROR_BAD_NETPATH, ENOENT },         { ERROR_FILE_EXISTS, EEXIST },       { ERROR_ALREADY_EXISTS, EEXIST },
        { ERROR_ACCESS_DENIED, EACCES },       { ERROR_SHARING_VIOLATION, EACCES }, { ERROR_LOCK_VIOLATION, EACCES },
        { ERROR_DISK_FULL, ENOSPC },           { ERROR_HANDLE_DISK_FULL, ENOSPC },  { ERROR_NOT_ENOUGH_MEMORY, ENOMEM },
        { ERROR_DIR_NOT_EMPTY, ENOTEMPTY },    { ERROR_DIRECTORY, ENOTDIR },        { ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG },
        { ERROR_TOO_MANY_OPEN_FILES, EMFILE }, { ERROR_WRITE_PROTECT, EROFS },      { ERROR_INVALID_HANDLE, EBADF },
    };
    const DWORD error = GetLastError();
    errno = EIO;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].error == error)
            errno = known[i].number;
    return -1;
}

static int fail_with(int number)
{
    errno = number;
    return -1;
}

/* Whether the last call failed as the file is removed, and others have it open still. */
static bool is_removed(void)
{
    static const LONG DELETE_PENDING = (LONG)0xc0000056;
    if (RtlGetLastNtStatus() != DELETE_PENDING)
        return false;
    SetLastError(ERROR_FILE_NOT_FOUND);
    return true;
}

/* A file that another has open, or that is removed but still open, is neither replaced nor removed. Others read for moments: it is tried for half a
 * second. */
static bool try_again(int *tries)
{
    const DWORD error = GetLastError();
    if ((error != ERROR_ACCESS_DENIED && error != ERROR_SHARING_VIOLATION) || *tries == 60)
        return false;
    Sleep(*tries < 20 ? 1 : 10);
    SetLastError(error);
    ++*tries;
    return true;
}

static HANDLE handle_of(int file)
{
    return (HANDLE)_get_osfhandle(file);
}

/* ---- what is there ---- */

static const ULONGLONG TICKS = 10000000, EPOCH = UINT64_C(116444736000000000); /* a second, and 1970, in units of 100 ns since 1601 */

static int status_of(HANDLE handle, struct kvt_stat *status)
{
    BY_HANDLE_FILE_INFORMATION found;
    *status = (struct kvt_stat){ 0 };
    switch (GetFileType(handle)) {
    case FILE_TYPE_CHAR:
        status->st_mode = S_IFCHR | 0666;
        return 0;
    case FILE_TYPE_PIPE:
        status->st_mode = S_IFIFO | 0666;
        return 0;
    default:
        break;
    }
    if (!GetFileInformationByHandle(handle, &found))
        return fail_last_error();
    const ULONGLONG time = (ULONGLONG)found.ftLastWriteTime.dwHighDateTime << 32 | found.ftLastWriteTime.dwLowDateTime;
    const unsigned writable = found.dwFileAttributes & FILE_ATTRIBUTE_READONLY ? 0 : 0200;
    if (found.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT)
        status->st_mode = S_IFLNK | 0777;
    else if (found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
        status->st_mode = S_IFDIR | 0755;
    else
        status->st_mode = S_IFREG | 0444 | writable;
    status->st_dev = found.dwVolumeSerialNumber;
    status->st_ino = (uint64_t)found.nFileIndexHigh << 32 | found.nFileIndexLow;
    status->st_size = (long long)((uint64_t)found.nFileSizeHigh << 32 | found.nFileSizeLow);
    status->st_mtim.tv_sec = (time_t)(((long long)time - (long long)EPOCH) / (long long)TICKS);
    status->st_mtim.tv_nsec = (long)(time % TICKS * 100);
    return 0;
}

static HANDLE create(const char *path, DWORD access, DWORD disposition, DWORD attributes)
{
    return CreateFileA(strcmp(path, "/dev/null") == 0 ? "NUL" : path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                       disposition, FILE_FLAG_BACKUP_SEMANTICS | attributes, NULL); /* with that flag folders are opened as well */
}

static int status_at(const char *path, struct kvt_stat *status, bool follow)
{
    const HANDLE handle = create(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, follow ? 0 : FILE_FLAG_OPEN_REPARSE_POINT);
    if (handle == INVALID_HANDLE_VALUE) {
        (void)is_removed();
        return fail_last_error();
    }
    const int result = status_of(handle, status);
    CloseHandle(handle);
    return result;
}

int kvt_stat(const char *path, struct kvt_stat *status)
{
    return status_at(path, status, true);
}

int lstat(const char *path, struct kvt_stat *status)
{
    return status_at(path, status, false);
}

/* Of msvcrt's not all devices are there. */
int kvt_access(const char *path, int mode)
{
    struct kvt_stat status;
    if (kvt_stat(path, &status) != 0)
        return -1;
    return (mode & W_OK) && (status.st_mode & 0200) == 0 ? fail_with(EACCES) : 0;
}

int kvt_fstat(int file, struct kvt_stat *status)
{
    return status_of(handle_of(file), status);
}

int futimens(int file, const struct timespec times[2])
{
    FILETIME stamps[2];
    GetSystemTimeAsFileTime(&stamps[0]);
    stamps[1] = stamps[0];
    for (int i = 0; times != NULL && i < 2; i++) {
        const ULONGLONG time = (ULONGLONG)times[i].tv_sec * TICKS + (ULONGLONG)times[i].tv_nsec / 100 + EPOCH;
        stamps[i] = (FILETIME){ (DWORD)time, (DWORD)(time >> 32) };
    }
    return SetFileTime(handle_of(file), NULL, &stamps[0], &stamps[1]) ? 0 : fail_last_error();
}

/* ---- opening ---- */

int kvt_open(const char *path, int flags, ...)
{
    static const DWORD dispositions[] = { OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE_EXISTING, CREATE_ALWAYS };
    const int how = flags & (_O_WRONLY | _O_RDWR);
    const DWORD access = how == _O_RDWR ? GENERIC_READ | GENERIC_WRITE : how == _O_WRONLY ? GENERIC_WRITE : GENERIC_READ;
    DWORD disposition = dispositions[(flags & _O_CREAT ? 1 : 0) + (flags & _O_TRUNC ? 2 : 0)];
    if ((flags & (_O_CREAT | _O_EXCL)) == (_O_CREAT | _O_EXCL))
        disposition = CREATE_NEW;
    const DWORD attributes = flags & O_NOFOLLOW ? FILE_FLAG_OPEN_REPARSE_POINT : FILE_ATTRIBUTE_NORMAL;
    struct kvt_stat status;
    /* Who may read a file of their own may set its time. */
    HANDLE handle = create(path, access | FILE_WRITE_ATTRIBUTES, disposition, attributes);
    if (handle == INVALID_HANDLE_VALUE && !is_removed() && GetLastError() == ERROR_ACCESS_DENIED)
        handle = create(path, access, disposition, attributes);
    if (handle == INVALID_HANDLE_VALUE) {
        fail_last_error();
        if (errno == EACCES && how != 0 && kvt_stat(path, &status) == 0 && S_ISDIR(status.st_mode))
            return fail_with(EISDIR);
        return -1;
    }
    int why = status_of(handle, &status) != 0 ? errno : 0;
    if (why == 0 && (flags & O_NOFOLLOW) && S_ISLNK(status.st_mode))
        why = ELOOP;
    if (why == 0 && (flags & O_DIRECTORY) && !S_ISDIR(status.st_mode))
        why = ENOTDIR;
    const int file = why == 0 ? _open_osfhandle((intptr_t)handle, (flags & (_O_APPEND | _O_NOINHERIT)) | _O_BINARY) : -1;
    if (file < 0) {
        CloseHandle(handle);
        return fail_with(why != 0 ? why : EMFILE);
    }
    return file;
}

/* ---- names in a folder that is open ---- */

enum { PATH = 4096 };

/* Of the folder itself, where `name` is ".". 0, or -1 with errno. */
static int path_in(int folder, const char *name, char path[PATH])
{
    const DWORD n = GetFinalPathNameByHandleA(handle_of(folder), path, PATH, FILE_NAME_NORMALIZED | VOLUME_NAME_DOS);
    if (n == 0)
        return fail_last_error();
    const size_t length = strlen(name);
    if (n + 1 + length >= PATH)
        return fail_with(ENAMETOOLONG);
    if (strcmp(name, ".") == 0)
        return 0;
    path[n] = '\\';
    memcpy(path + n + 1, name, length + 1);
    return 0;
}

int openat(int folder, const char *name, int flags, ...)
{
    char path[PATH];
    return path_in(folder, name, path) == 0 ? kvt_open(path, flags) : -1;
}

int fstatat(int folder, const char *name, struct kvt_stat *status, int flags)
{
    char path[PATH];
    return path_in(folder, name, path) == 0 ? status_at(path, status, (flags & AT_SYMLINK_NOFOLLOW) == 0) : -1;
}

int unlinkat(int folder, const char *name, int flags)
{
    char path[PATH];
    (void)flags;
    if (path_in(folder, name, path) != 0)
        return -1;
    int tries = 0;
    do {
        if (DeleteFileA(path))
            return 0;
    } while (!is_removed() && try_again(&tries));
    return fail_last_error();
}

int kvt_rename(const char *from, const char *to)
{
    int tries = 0;
    do {
        if (MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING))
            return 0;
    } while (try_again(&tries));
    return fail_last_error();
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    char paths[2][PATH];
    return path_in(from_folder, from, paths[0]) == 0 && path_in(to_folder, to, paths[1]) == 0 ? kvt_rename(paths[0], paths[1]) : -1;
}

int kvt_mkdir(const char *path, int mode)
{
    (void)mode; /* a folder has the rights of the one that it is in */
    return CreateDirectoryA(path, NULL) ? 0 : fail_last_error();
}

/* With another random name until there is none such. */
char *mkdtemp(char *path)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const size_t n = strlen(path);
    if (n < 6 || strcmp(path + n - 6, "XXXXXX") != 0) {
        errno = EINVAL;
        return NULL;
    }
    do {
        for (char *place = path + n - 6; *place != 0; place++) {
            unsigned random;
            if (rand_s(&random) != 0)
                return NULL;
            *place = letters[random % (sizeof letters - 1)];
        }
        if (kvt_mkdir(path, 0700) == 0)
            return path;
    } while (errno == EEXIST);
    return NULL;
}

DIR *fdopendir(int folder)
{
    static const char prefix[] = "\\\\?\\"; /* opendir does not know it */
    char path[PATH];
    if (path_in(folder, ".", path) != 0)
        return NULL;
    DIR *names = opendir(strncmp(path, prefix, sizeof prefix - 1) == 0 ? path + sizeof prefix - 1 : path);
    if (names != NULL)
        close(folder);
    return names;
}

/* ---- bytes ---- */

ssize_t pread(int file, void *bytes, size_t n, off64_t at)
{
    OVERLAPPED place = { .Offset = (DWORD)at, .OffsetHigh = (DWORD)((uint64_t)at >> 32) };
    DWORD done;
    if (ReadFile(handle_of(file), bytes, n < INT_MAX ? (DWORD)n : INT_MAX, &done, &place))
        return (ssize_t)done;
    return GetLastError() == ERROR_HANDLE_EOF ? 0 : fail_last_error();
}

ssize_t pwrite(int file, const void *bytes, size_t n, off64_t at)
{
    OVERLAPPED place = { .Offset = (DWORD)at, .OffsetHigh = (DWORD)((uint64_t)at >> 32) };
    DWORD done;
    return WriteFile(handle_of(file), bytes, n < INT_MAX ? (DWORD)n : INT_MAX, &done, &place) ? (ssize_t)done : fail_last_error();
}

ssize_t writev(int file, const struct iovec *parts, int n)
{
    for (; n > 0; parts++, n--)
        if (parts->iov_len != 0)
            return write(file, parts->iov_base, parts->iov_len);
    return 0;
}

int fsync(int file)
{
    return _commit(file);
}

/* Locks of Windows keep others from reading: the locked byte is one that no file has. */
int flock(int file, int operation)
{
    OVERLAPPED place = { .OffsetHigh = 0x40000000 };
    if (operation == LOCK_UN)
        return UnlockFileEx(handle_of(file), 0, 1, 0, &place) ? 0 : fail_last_error();
    return LockFileEx(handle_of(file), LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &place) ? 0 : fail_last_error();
}
