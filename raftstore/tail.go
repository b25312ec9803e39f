package raftstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
)

// tail keeps the newest entries of the log in a flat file before they go to
// bbolt, many at a time. bbolt flushes the disk twice for a commit, and writes
// some seven pages for the smallest entry, most of them new to the file; here
// an entry costs its own bytes and one flush, on blocks that were written
// before, so that the file system has nothing to add.
//
// The file has two slots for its header and then two halves for records. Each
// generation of records fills one half, in turn, and its number is part of
// their checksums: what is left of earlier ones behind the last record is
// never mistaken for more. The header names the oldest generation that is not
// in bbolt. When a half is full its entries move there while the other half
// fills; all move before any is deleted. It implements [raft.LogStore].
type tail struct {
	inner raft.LogStore
	file  flat  // the records
	head  flat  // the same file, for headers
	half  int64 // bytes of records a generation

	write  sync.Mutex // held by who stores or deletes; guards the fields below
	gen    uint64
	at     int64 // where in its half the next record goes
	dirty  bool  // no record may follow: the file may hold more than was acknowledged, or has no half to spare
	buf    []byte
	moving *move // nil: none that anybody need wait for
	slot   int64 // of the header in force; the move's while there is one

	mu   sync.RWMutex // guards logs
	logs []*raft.Log  // not in inner yet, without a gap
}

// move is a generation on its way to inner.
type move struct {
	done chan struct{}
	err  error // to be read after done
}

// flat is a file of fixed size. Sync returns when what was written is safe. That
// it is not is told to each that has opened the file, but only once: whoever
// syncs beside another needs an opening of his own.
type flat interface {
	io.WriterAt
	Sync() error
	Close() error
}

const (
	tailFile   = "tail.log"
	tailHalf   = 1 << 20
	keptBuffer = 64 << 10
)

// data is a file whose Sync leaves out what no reader needs, such as times.
type data struct{ *os.File }

// Sync implements flat.
func (f data) Sync() error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// openTail opens the tail in dir, and makes it if there is none.
func openTail(dir string, inner raft.LogStore) (*tail, error) {
	path := filepath.Join(dir, tailFile)
	image, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		image, err = makeTail(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if want := recordsBegin + 2*tailHalf; len(image) != want {
		return nil, fmt.Errorf("open %s: the newest part of the log is damaged: %d bytes long, want %d", path, len(image), want)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open log's tail: %w", err)
	}
	head, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open log's tail: %w", err), file.Close())
	}
	t, err := newTail(data{file}, data{head}, image, inner)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), file.Close(), head.Close())
	}
	return t, nil
}

// makeTail makes an empty file. It takes its name when it is whole: one that
// has no header is damaged, not new.
func makeTail(path string) ([]byte, error) {
	image := make([]byte, recordsBegin+2*tailHalf)
	copy(image, header(0))
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(image)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return image, errors.Join(d.Sync(), d.Close())
}

// newTail goes on from image, what the file holds. Nothing is written before
// the first change, which begins a generation: the disk may be full.
func newTail(file, head flat, image []byte, inner raft.LogStore) (*tail, error) {
	gen, slot, ok := generation(image)
	if !ok {
		return nil, errors.New("the newest part of the log is damaged: it has no header")
	}
	t := &tail{
		inner: inner, file: file, head: head, half: int64(len(image)-recordsBegin) / 2,
		gen: gen + 1, slot: slot, dirty: true,
	}
	t.logs = records(t.of(image, gen), gen)
	if next := records(t.of(image, gen+1), gen+1); len(t.logs) > 0 && len(next) > 0 && follows(t.logs, next[0]) {
		t.logs = append(t.logs, next...)
	}
	return t, nil
}

// begins is where in the file a generation's half begins.
func (t *tail) begins(gen uint64) int64 { return recordsBegin + int64(gen%2)*t.half }

func (t *tail) of(image []byte, gen uint64) []byte { return image[t.begins(gen):][:t.half] }

// turn moves all entries to inner and begins the next generation.
func (t *tail) turn() error {
	t.settle()
	if t.at == 0 && len(t.logs) == 0 && !t.dirty {
		return nil
	}
	if len(t.logs) > 0 {
		if err := t.inner.StoreLogs(t.logs); err != nil {
			return fmt.Errorf("move newest entries: %w", err)
		}
	}
	t.dirty = true
	if err := t.begin(t.gen + 1); err != nil {
		return err
	}
	t.gen, t.at, t.dirty = t.gen+1, 0, false
	t.moved(len(t.logs))
	return nil
}

// settle waits for the move under way. After one that failed both halves are
// in use: nothing more may be written before all of it is in inner, however
// often that has to be tried.
func (t *tail) settle() {
	if t.moving == nil {
		return
	}
	<-t.moving.done
	t.dirty = t.dirty || t.moving.err != nil
	t.moving = nil
}

// rotate goes on in the other half while the entries of this one move.
func (t *tail) rotate() error {
	if t.settle(); t.dirty {
		return t.turn()
	}
	logs, m := t.logs, &move{done: make(chan struct{})}
	t.gen, t.at, t.moving = t.gen+1, 0, m
	go func(gen uint64) {
		defer close(m.done)
		if m.err = t.inner.StoreLogs(logs); m.err == nil {
			m.err = t.begin(gen)
		}
		if m.err == nil {
			t.moved(len(logs))
		}
	}(t.gen)
	return nil
}

// begin makes gen the oldest generation that is not in inner. Its header goes
// into the slot that is not in force, so that one of the two is always whole.
func (t *tail) begin(gen uint64) error {
	slot := 1 - t.slot
	_, err := t.head.WriteAt(header(gen), slot*slotSize)
	if err == nil {
		err = t.head.Sync()
	}
	if err != nil {
		return fmt.Errorf("begin tail: %w", err)
	}
	t.slot = slot
	return nil
}

// moved forgets the oldest n entries, which are in inner.
func (t *tail) moved(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logs = append([]*raft.Log(nil), t.logs[n:]...)
}

// StoreLogs implements [raft.LogStore].
func (t *tail) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	t.write.Lock()
	defer t.write.Unlock()
	t.mu.RLock()
	gap := !follows(t.logs, logs[0])
	t.mu.RUnlock()
	if t.dirty || gap {
		if err := t.turn(); err != nil {
			return err
		}
	}
	b := t.encode(logs)
	switch n := int64(len(b)); {
	case n > t.half:
		if err := t.turn(); err != nil {
			return err
		}
		return t.inner.StoreLogs(logs)
	case t.at+n > t.half:
		if err := t.rotate(); err != nil {
			return err
		}
		b = t.encode(logs)
	}
	t.dirty = true
	if _, err := t.file.WriteAt(b, t.begins(t.gen)+t.at); err != nil {
		return fmt.Errorf("write tail: %w", err)
	}
	if err := t.file.Sync(); err != nil {
		return fmt.Errorf("flush tail: %w", err)
	}
	t.at += int64(len(b))
	t.dirty = false
	t.mu.Lock()
	defer t.mu.Unlock()
	t.logs = append(t.logs, logs...)
	return nil
}

func (t *tail) encode(logs []*raft.Log) []byte {
	b := t.buf[:0]
	for _, l := range logs {
		b = appendLog(b, t.gen, l)
	}
	if t.buf = nil; cap(b) <= keptBuffer {
		t.buf = b
	}
	return b
}

// StoreLog implements [raft.LogStore].
func (t *tail) StoreLog(l *raft.Log) error { return t.StoreLogs([]*raft.Log{l}) }

// DeleteRange implements [raft.LogStore].
func (t *tail) DeleteRange(from, to uint64) error {
	t.write.Lock()
	defer t.write.Unlock()
	if err := t.turn(); err != nil {
		return err
	}
	return t.inner.DeleteRange(from, to)
}

// GetLog implements [raft.LogStore].
func (t *tail) GetLog(i uint64, l *raft.Log) error {
	t.mu.RLock()
	if n := len(t.logs); n > 0 && i >= t.logs[0].Index && i <= t.logs[n-1].Index {
		*l = *t.logs[i-t.logs[0].Index]
		t.mu.RUnlock()
		return nil
	}
	t.mu.RUnlock()
	return t.inner.GetLog(i, l)
}

// FirstIndex implements [raft.LogStore].
func (t *tail) FirstIndex() (uint64, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, err := t.inner.FirstIndex()
	if err == nil && len(t.logs) > 0 && (i == 0 || t.logs[0].Index < i) {
		i = t.logs[0].Index
	}
	return i, err
}

// LastIndex implements [raft.LogStore].
func (t *tail) LastIndex() (uint64, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, err := t.inner.LastIndex()
	if n := len(t.logs); err == nil && n > 0 {
		i = max(i, t.logs[n-1].Index)
	}
	return i, err
}

// close leaves everything in inner, where an earlier program would look.
func (t *tail) close() error {
	t.write.Lock()
	defer t.write.Unlock()
	return errors.Join(t.turn(), t.file.Close(), t.head.Close())
}
