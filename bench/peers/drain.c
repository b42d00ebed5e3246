/*
 * The yardstick: what a plain C program makes of the same streams. It waits on a unix socket for as many connections
 * as it is told, and each gets a thread that receives 1 MiB, takes its CRC-32 if asked to, and writes it with O_DIRECT
 * to the next place of the file. As in the helper, buffers are in huge pages, places come in extents from one cursor
 * that all threads share, 64 MiB are reserved at once from 5 connections on, and the end is fdatasync. Checksums are libdeflate's,
 * the fastest that a C program finds. It keeps neither an index nor what the streams say: nobody could restore from its file.
 *
 *   drain SOCKET FILE CONNECTIONS crc32|none [check]
 *
 * Writes "listening" to stdout when connections succeed, and at the end one line of JSON: connections, bytes and, with
 * `check`, how many blocks it read back, every one with the CRC-32 of what was received.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libdeflate.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    SECTOR = 4096,
    BLOCK = 1 << 20,
    HUGE_PAGE = 2 << 20,
    EXTENT = 8 << 20,
    REGION = 64 << 20, /* reserved at once */
    RESERVE_FROM = 5, /* fewer writers gain nothing from it */
    MOST_CONNECTIONS = 256,
};

/* One block as it was written. */
struct block {
    off_t offset;
    uint32_t length;
    uint32_t crc;
};

struct channel {
    pthread_t thread;
    int socket;
    off_t next, end; /* the free part of the current extent */
    uint64_t bytes;
    struct block *blocks;
    size_t count, room;
};

static int file;
static int connections;
static bool checksums;
static atomic_llong cursor, room; /* what is claimed, and what is reserved, from the start of the file */

static void die(const char *what)
{
    fprintf(stderr, "drain: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint8_t *huge_buffer(void)
{
    void *memory = aligned_alloc(HUGE_PAGE, HUGE_PAGE);
    if (memory == NULL)
        die("memory");
    madvise(memory, HUGE_PAGE, MADV_HUGEPAGE); /* where it is refused, 4 KiB pages do */
    return memory;
}

static size_t padded(size_t bytes)
{
    return (bytes + SECTOR - 1) / SECTOR * SECTOR;
}

/* Receives until the block is full or the peer has closed. Sums up what came while it is still in the cache. */
static size_t receive_block(int socket, uint8_t *block, uint32_t *crc)
{
    size_t filled = 0;
    while (filled < BLOCK) {
        ssize_t got = recv(socket, block + filled, BLOCK - filled, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die("recv");
        if (got == 0)
            break;
        if (checksums)
            *crc = libdeflate_crc32(*crc, block + filled, got);
        filled += got;
    }
    return filled;
}

static void claim_extent(struct channel *channel)
{
    channel->next = atomic_fetch_add(&cursor, EXTENT);
    channel->end = channel->next + EXTENT;
    long long reserved = room;
    if (connections < RESERVE_FROM || channel->end <= reserved)
        return;
    if (atomic_compare_exchange_strong(&room, &reserved, reserved + REGION) &&
        fallocate(file, 0, reserved, REGION) != 0 && errno == ENOSPC)
        die("fallocate"); /* any other error: a file system that cannot reserve, and need not */
}

static void write_block(off_t offset, const uint8_t *block, size_t length)
{
    while (length > 0) {
        ssize_t done = pwrite(file, block, length, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0 || done % SECTOR != 0)
            die("pwrite");
        block += done;
        offset += done;
        length -= done;
    }
}

static void remember(struct channel *channel, struct block block)
{
    if (channel->count == channel->room) {
        channel->room = channel->room == 0 ? 1024 : 2 * channel->room;
        channel->blocks = realloc(channel->blocks, channel->room * sizeof(struct block));
        if (channel->blocks == NULL)
            die("memory");
    }
    channel->blocks[channel->count++] = block;
}

static void *drain(void *argument)
{
    struct channel *channel = argument;
    uint8_t *block = huge_buffer();
    for (;;) {
        uint32_t crc = 0;
        size_t length = receive_block(channel->socket, block, &crc);
        if (length == 0)
            break;
        if (channel->next == channel->end)
            claim_extent(channel);
        memset(block + length, 0, padded(length) - length);
        write_block(channel->next, block, padded(length));
        remember(channel, (struct block){ channel->next, length, crc });
        channel->next += padded(length);
        channel->bytes += length;
    }
    close(channel->socket);
    free(block);
    return NULL;
}

/* Reads every block back; a program that is to be beaten must have done its work. */
static size_t check(const struct channel *channels)
{
    uint8_t *block = huge_buffer();
    size_t checked = 0;
    for (int n = 0; n < connections; n++) {
        for (size_t k = 0; k < channels[n].count; k++, checked++) {
            struct block written = channels[n].blocks[k];
            ssize_t whole = padded(written.length);
            if (pread(file, block, whole, written.offset) != whole)
                die("pread");
            if (libdeflate_crc32(0, block, written.length) != written.crc) {
                fprintf(stderr, "drain: what is at offset %lld was never received\n", (long long)written.offset);
                exit(1);
            }
        }
    }
    free(block);
    return checked;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        die("socket");
    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(address.sun_path, path);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, connections) != 0)
        die(path);
    return listener;
}

int main(int argc, char **argv)
{
    bool checking = argc == 6 && strcmp(argv[5], "check") == 0;
    connections = argc >= 5 ? atoi(argv[3]) : 0;
    if (connections < 1 || connections > MOST_CONNECTIONS || (argc > 5 && !checking)) {
        fprintf(stderr, "usage: drain SOCKET FILE CONNECTIONS crc32|none [check]\n");
        return 2;
    }
    checksums = checking || strcmp(argv[4], "crc32") == 0;
    file = open(argv[2], O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
    if (file < 0)
        die(argv[2]);
    int listener = listen_at(argv[1]);
    puts("listening");
    fflush(stdout);

    static struct channel channels[MOST_CONNECTIONS];
    for (int n = 0; n < connections; n++) {
        channels[n].socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (channels[n].socket < 0)
            die("accept");
        if (pthread_create(&channels[n].thread, NULL, drain, &channels[n]) != 0)
            die("a thread");
    }
    unsigned long long bytes = 0;
    for (int n = 0; n < connections; n++) {
        pthread_join(channels[n].thread, NULL);
        bytes += channels[n].bytes;
    }
    unlink(argv[1]);
    if (ftruncate(file, cursor) != 0 || fdatasync(file) != 0)
        die("fdatasync");
    printf("{\"connections\":%d,\"bytes\":%llu,\"checked\":%zu}\n", connections, bytes, checking ? check(channels) : 0);
    return 0;
}
