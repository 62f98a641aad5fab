package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"companion/adapters/authority/transport"
	"companion/adapters/origin"
	"companion/adapters/privatefs"
	"companion/adapters/runtime/download"
	"companion/adapters/runtime/store"
	"companion/messages"
)

// download fetches the URL into the data folder. The digest that the user gave is the verdict, so redirects may lead to any
// public https host.
func (d *addition) download(ctx context.Context) error {
	given, err := url.Parse(d.source)
	switch {
	case err != nil || given.Scheme != "https":
		return usageFailure(d.shown()+" is not an https URL", "only https URLs and files are accepted; download it yourself and add the file")
	case d.digest == nil:
		return usageFailure("a URL needs the digest of its file: --sha256 DIGEST", "take the digest from a place that you trust, not from the host that serves the file")
	}
	if _, err := origin.Host(d.source); err != nil {
		return usageFailure("this URL is not accepted: "+err.Error(), "give a plain https URL, without user name and fragment")
	}
	folder, err := store.ImportDir(d.places.Data)
	if err != nil {
		return err
	}
	roots, err := transport.Roots(d.settings.Hub.CAFile)
	if err != nil {
		return err
	}
	file := filepath.Join(folder, hex.EncodeToString(d.digest[:]))
	if err := d.lockDownload(ctx, file); err != nil {
		return err
	}
	sink, err := newFileSink(file)
	if err != nil {
		return err
	}
	defer sink.close()
	sink.fits = func(bytes int64) error { return store.Fits(d.places.Data, file, bytes, d.settings.Disk.Budget) }
	var finish func()
	sink.progress, finish = d.app.showBytes("download", 0)
	defer finish()
	client := download.New(roots, 0)
	var hosts []string
	request := download.Request{
		URL: d.source, AnyOrigin: true, PrivateHosts: d.settings.Manifest.PrivateHosts, Announced: sink.fits,
		Visited: func(visited string) {
			if u, err := url.Parse(visited); err == nil && !slices.Contains(hosts, "https://"+u.Host+"/") {
				hosts = append(hosts, "https://"+u.Host+"/")
			}
		},
	}
	if err := fetchAgain(ctx, client, request, sink); err != nil {
		return d.downloadFailure(err)
	}
	d.file, d.fetched = sink.file.Name(), true
	if given.RawQuery == "" && !given.ForceQuery {
		// The daemon can fetch it again, from these hosts only.
		d.urls, d.origins = []string{d.source}, hosts
	} else {
		d.app.say("The URL is not stored, because its query may be a secret. The daemon cannot fetch the file again by itself.")
	}
	return sink.file.Sync()
}

// lockDownload takes the lock of the download. It waits for a moment, because a clean-up may look at the lock.
func (d *addition) lockDownload(ctx context.Context, file string) error {
	for range 5 {
		unlock, err := store.LockImport(file)
		if err != nil {
			return err
		}
		if unlock != nil {
			d.unlock = unlock
			return nil
		}
		if err := pauseFor(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return &failure{code: "already_downloading", message: "another command downloads the file with this digest",
		hint: "wait until it has ended; if the file is not added then, use the same command again", exit: exitFailed}
}

// lockBudget waits until no other command adds something, where disk.budget bounds what they add together.
func (d *addition) lockBudget(ctx context.Context) (unlock func(), err error) {
	if d.settings.Disk.Budget == 0 {
		return func() {}, nil
	}
	for said := false; ; said = true {
		unlock, err := store.LockBudget(d.places.Data)
		if unlock != nil || err != nil {
			return unlock, err
		}
		if !said {
			d.app.say("Waiting for another `companion add`: with disk.budget one adds at a time …")
		}
		if err := pauseFor(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func pauseFor(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// shown is the source for messages. A user name and the query of a URL may be secrets.
func (d *addition) shown() string {
	if !strings.Contains(d.source, "://") {
		return oneLine(d.source)
	}
	u, err := url.Parse(d.source)
	if err != nil {
		bare, _, _ := strings.Cut(d.source, "://")
		return oneLine(bare) + "://…"
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return oneLine(u.String())
}

// fetchTries is how often a download is tried without progress.
const fetchTries = 4

// fetchAgain tries a download again after a failure that may pass, from where it stopped.
func fetchAgain(ctx context.Context, client *download.Client, request download.Request, sink *fileSink) error {
	pause := time.Second
	for tries := 1; ; tries++ {
		before := sink.at
		request.Offset, request.Validator = sink.at, sink.tag
		err := client.Fetch(ctx, request, sink)
		var failure *download.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &failure) || failure.Permanent {
			return err
		}
		if sink.at > before {
			tries, pause = 1, time.Second
		}
		if tries == fetchTries {
			return err
		}
		if err := pauseFor(ctx, max(pause, min(failure.RetryAfter, time.Minute))); err != nil {
			return err
		}
		pause *= 2
	}
}

func (d *addition) downloadFailure(err error) error {
	reason := messages.Reason("")
	var transfer *download.Error
	var source *origin.Error
	var stored *store.Error
	switch {
	case errors.As(err, &stored):
		return d.storeFailure(stored, 0)
	case errors.As(err, &transfer):
		reason = transfer.Reason
	case errors.As(err, &source):
		reason = source.Reason
	case errors.Is(err, context.Canceled):
		return err
	default:
		return &failure{code: "failed", message: "downloading: " + err.Error(), exit: exitFailed, err: err}
	}
	text := explain(reason)
	if transfer != nil && transfer.Status != 0 {
		text = fmt.Sprintf("the server answered with status %d (%s)", transfer.Status, reason)
	}
	f := &failure{code: string(reason), message: "downloading " + d.shown() + ": " + text, exit: exitOf(reason), err: err,
		hint: "check the URL; the same command goes on where this one stopped"}
	if reason == messages.ReasonAddressNotAllowed {
		f.hint = nextStep(reason)
	}
	return f
}

// fileSink writes a download to a private file. The entity tag of the object is in a second file, so that the next command can
// go on.
type fileSink struct {
	file     *os.File
	at       int64
	tag      string
	progress func(int64)
	fits     func(bytes int64) error // refuses that many bytes
	fitting  int64                   // bytes that fit
}

// fitStep is how often a download of unknown length is compared with the budget.
const fitStep = 64 << 20

func newFileSink(path string) (*fileSink, error) {
	if err := privatefs.CheckFile(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("storing the download: %w", err)
	}
	s := &fileSink{file: file}
	if tag, err := os.ReadFile(path + store.ImportTag); err == nil {
		if info, err := file.Stat(); err == nil {
			s.at, s.tag = info.Size(), strings.TrimSpace(string(tag))
		}
	}
	return s, nil
}

// Begin implements download.Sink.
func (s *fileSink) Begin(offset int64, validator string) error {
	s.at, s.tag = offset, validator
	if err := s.file.Truncate(offset); err != nil {
		return fmt.Errorf("storing the download: %w", err)
	}
	if _, err := s.file.Seek(offset, 0); err != nil {
		return fmt.Errorf("storing the download: %w", err)
	}
	return privatefs.WriteFile(s.file.Name()+store.ImportTag, []byte(validator))
}

// Write implements download.Sink.
func (s *fileSink) Write(p []byte) (int, error) {
	if s.at+int64(len(p)) > maxAdded {
		return 0, fmt.Errorf("the download has more than %s", bytesText(maxAdded))
	}
	if s.at+int64(len(p)) > s.fitting {
		// A whole step may no longer fit although these bytes do.
		if err := s.fits(s.at + fitStep); err != nil {
			if err := s.fits(s.at + int64(len(p))); err != nil {
				return 0, err
			}
			s.fitting = s.at + int64(len(p))
		} else {
			s.fitting = s.at + fitStep
		}
	}
	n, err := s.file.Write(p)
	s.at += int64(n)
	s.progress(s.at)
	if err != nil {
		return n, fmt.Errorf("storing the download: %w", err)
	}
	return n, nil
}

// maxAdded is the largest file that a catalogue can name.
const maxAdded = 1 << 40

func (s *fileSink) close() { _ = s.file.Close() }

// showBytes shows the progress of one file: a bar on a terminal, a line every five seconds elsewhere (X6). total is 0 where it
// is not known.
func (a *app) showBytes(name string, total int64) (progress func(int64), finish func()) {
	if !isTerminal(a.err) {
		said := time.Now()
		return func(n int64) {
			if time.Since(said) >= 5*time.Second {
				said = time.Now()
				a.say("%s %s", oneLine(name), progressText(n, total))
			}
		}, func() {}
	}
	bars := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(60))
	bar := bars.AddBar(total, mpb.PrependDecorators(decor.Name(oneLine(name)+" ")), mpb.AppendDecorators(decor.CountersKibiByte("% .1f of % .1f")))
	return bar.SetCurrent, func() {
		bar.SetTotal(-1, true)
		bars.Wait()
	}
}
