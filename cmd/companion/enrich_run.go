package main

import (
	"context"

	"companion/adapters/completion"
	"companion/adapters/completion/enrich"
	"companion/adapters/completion/lane"
	"companion/adapters/config"
)

// enrichRun is what the batches of one enrich command share.
type enrichRun struct {
	app        *app
	flags      enrichFlags
	lane       lane.Lane
	vocabulary []string
	store      enrich.Store // nil before the first batch: a lane that is refused makes no output file
	closeStore func() error
}

// asking is the opened lane of one batch.
type asking struct {
	enricher *enrich.Enricher
	client   *completion.Client
	jobs     int
	places   config.Places
}

// open reads the configuration and opens the lane for each batch: a watch lives longer than the daemon's token and port.
func (r *enrichRun) open(ctx context.Context) (asking, error) {
	s, places, err := r.app.load()
	if err != nil {
		return asking{}, err
	}
	at := configured(s, r.lane)
	consented := func() error { return r.consented(at) }
	e, client, jobs, err := r.app.enricher(ctx, s, places, r.lane, consented)
	if err != nil {
		return asking{}, err
	}
	e.ConsentID, e.Vocabulary = r.flags.consentID, r.vocabulary
	if r.flags.jobs > 0 {
		jobs = r.flags.jobs
	}
	if r.store == nil {
		if r.store, r.closeStore, err = r.app.openStore(r.flags.output, r.flags.write); err != nil {
			client.Close()
			return asking{}, err
		}
	}
	return asking{e, client, jobs, places}, nil
}

func (r *enrichRun) close() error {
	if r.store == nil || r.closeStore == nil {
		return nil
	}
	return r.closeStore()
}

// batch enriches notes.
func (r *enrichRun) batch(ctx context.Context, paths []string, problems []enrich.Outcome, report func(enrich.Outcome)) error {
	opened, err := r.open(ctx)
	if err != nil {
		return err
	}
	return r.work(ctx, opened, paths, problems, report)
}

func (r *enrichRun) work(ctx context.Context, opened asking, paths []string, problems []enrich.Outcome, report func(enrich.Outcome)) error {
	defer opened.client.Close()
	closeClaims := r.app.claim(opened.enricher, opened.places)
	defer closeClaims()
	p := newEnrichProgress(r.app, len(paths), r.lane)
	p.problems(problems)
	return p.result(enrich.Batch(ctx, opened.enricher, paths, opened.jobs, r.store, func(o enrich.Outcome) {
		switch {
		case o.Waiting > 0:
			p.waiting(o.Waiting)
		case o.Unfinished:
			p.sent += o.Sent
		default:
			p.note(o)
			report(o)
		}
	}))
}

// again is batch in a watch. The local lane may have gone away: again waits for it, and where it then cannot be opened, the notes
// are tried again later.
func (r *enrichRun) again(ctx context.Context, paths []string, report func(enrich.Outcome)) error {
	if r.lane != lane.Local {
		return r.batch(ctx, paths, nil, report)
	}
	_, places, err := r.app.load()
	if err != nil {
		return err
	}
	if err := r.app.awaitLocal(ctx, places); err != nil {
		return err
	}
	opened, err := r.open(ctx)
	if err == nil {
		return r.work(ctx, opened, paths, nil, report)
	}
	for _, path := range paths {
		report(enrich.Outcome{Path: path, Err: err})
	}
	f := described(err)
	return &failure{code: notesFailed, message: f.message, exit: f.exit, hint: f.hint}
}

// consented asks for consent to a request of the lane at (E4). A refusal ends the run: no later note is sent.
func (r *enrichRun) consented(at config.Lane) error {
	// The vocabulary comes from the user's notes, so it is as private as they are.
	if err := r.app.stillConsented(r.lane, at, r.flags.private || r.flags.tagsFrom != "", r.flags.consentID); err != nil {
		return &enrich.RefusalError{Err: err}
	}
	return nil
}
