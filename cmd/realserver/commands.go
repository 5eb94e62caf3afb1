package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvs-operator/lvs-operator/internal/kernel"
	"github.com/lvs-operator/lvs-operator/internal/realserver"
)

// patience bounds how long putting back may take when the program is told to
// end.
const patience = 15 * time.Second

// keep sets up; unless that is all, it keeps everything so until ctx ends and
// then puts it back.
func keep(ctx context.Context, o options, stderr io.Writer) error {
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: o.logLevel}))
	return withHost(ctx, o, func(host *kernel.RealServer) error {
		dir := realserver.StateDir(o.stateDir)
		keeper := realserver.Keeper{Host: host, VIPs: o.vips, Interval: o.interval, Log: log}
		if err := keeper.SetUp(ctx); err != nil {
			return err
		}
		if err := dir.SaveVIPs(o.vips); err != nil {
			return errors.Join(err, restore(ctx, dir, host))
		}
		log.Info("this host is a real server", "vips", o.vips)
		if o.once {
			return nil
		}
		keeper.Run(ctx)
		if err := restore(ctx, dir, host); err != nil {
			return err
		}
		log.Info("the host is as it was found")
		return nil
	})
}

// putBack undoes what a process that is gone has set up.
func putBack(ctx context.Context, o options, stdout io.Writer) error {
	err := withHost(ctx, o, func(host *kernel.RealServer) error {
		return restore(ctx, realserver.StateDir(o.stateDir), host)
	})
	if err == nil {
		fmt.Fprintln(stdout, "The host is as it was found.")
	}
	return err
}

// show prints what is set up and returns the exit status.
func show(ctx context.Context, o options, stdout, stderr io.Writer) int {
	status, err := look(ctx, o)
	if err != nil {
		complain(stderr, err)
		return exitUnknown
	}
	fmt.Fprint(stdout, status)
	if !status.Complete() {
		return exitNotSo
	}
	return exitDone
}

func look(ctx context.Context, o options) (status realserver.Status, err error) {
	dir := realserver.StateDir(o.stateDir)
	if status.VIPs, err = dir.VIPs(); err != nil {
		return status, err
	}
	if status.Keeper, err = dir.Keeper(); err != nil {
		return status, err
	}
	host, err := open(o)
	if err != nil {
		return status, err
	}
	defer func() { _ = host.Close() }()
	status.State, err = host.Observe(ctx)
	return status, err
}

// restore works on when ctx has ended: that is when it is needed.
func restore(ctx context.Context, dir realserver.StateDir, host *kernel.RealServer) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := host.Restore(ctx); err != nil {
		return fmt.Errorf("putting back what was found: %w", err)
	}
	return dir.ForgetVIPs()
}

// withHost calls fn when nobody else changes the host.
func withHost(ctx context.Context, o options, fn func(*kernel.RealServer) error) error {
	if err := mayChange(); err != nil {
		return err
	}
	lock, err := realserver.StateDir(o.stateDir).Lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }()
	host, err := open(o)
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	return fn(host)
}

func open(o options) (*kernel.RealServer, error) {
	return kernel.NewRealServer(kernel.Options{Sysctls: o.sysctls, StateDir: o.stateDir})
}

// mayChange says so before anything is done by halves.
func mayChange() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading the process's capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errors.New("this needs root, or the capability NET_ADMIN")
	}
	return nil
}
