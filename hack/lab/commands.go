package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lvs-operator/lvs-operator/hack/lab/cluster"
	"github.com/lvs-operator/lvs-operator/hack/lab/guest"
	"github.com/lvs-operator/lvs-operator/hack/lab/toolchain"
	"github.com/lvs-operator/lvs-operator/hack/lab/wire"
)

func upCommand(name *string) *cobra.Command {
	var config cluster.Config
	var pods []string
	cmd := &cobra.Command{
		Use: "up", Short: "Make the lab and wait until its nodes are Ready", Args: usage(cobra.NoArgs),
		Long: "Make the lab and wait until its nodes are Ready. The first time on a machine\n" +
			"Kubernetes is built from source, which takes about 15 minutes and 5 GB of disk.\n\n" +
			"Workers' pods are connected in one of these ways:\n" +
			"  routed   in a network of the node (CNI ptp): 10.244.31.0/24 for worker1, ...\n" +
			"  bridge   on the segment: the node's card is a port of a bridge (CNI bridge)\n" +
			"  macvlan  on the segment: macvlan interfaces on the node's card (CNI macvlan)\n" +
			"Those on the segment have an address of both families, .140 to .149 for worker1,\n" +
			".150 to .159 for worker2, ..., for six workers; directors' pods are routed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			config.Name = *name
			for _, network := range pods {
				config.Pods = append(config.Pods, cluster.PodNetwork(network))
			}
			if err := config.Validate(); err != nil {
				return usageError{err}
			}
			if _, err := guest.ParseAccelerator(config.Accelerator); err != nil {
				return usageError{err}
			}
			lab, err := cluster.Up(cmd.Context(), config, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "export KUBECONFIG=%s\n", lab.Kubeconfig())
			return nil
		},
	}
	cmd.Flags().IntVar(&config.Directors, "directors", 2, "how many nodes are labelled as directors")
	cmd.Flags().IntVar(&config.Workers, "workers", 1, "how many other nodes")
	cmd.Flags().StringSliceVar(&pods, "pods", nil, "how pods of worker1, worker2, ... are connected, as in `routed,bridge` (default all routed)")
	cmd.Flags().IntVar(&config.MemoryMiB, "memory", 1536, "each node's memory in `MiB`")
	cmd.Flags().StringVar(&config.Accelerator, "accelerator", string(guest.Auto), "how the nodes run: kvm, tcg, or auto, which tries")
	return cmd
}

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the lab, also one that is half there", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cluster.Down(cmd.Context(), *name) },
	}
}

func statusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the nodes and hosts", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := cluster.Open(*name)
			if err != nil {
				return err
			}
			members, err := lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "NAME\tSTATE\tCUT\tPODS\tADDRESSES")
			for _, member := range members {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n",
					member.Name, member.State, cutNames(member.Cuts), cmp.Or(string(member.Pods), "-"), strings.Join(member.Addresses, " "))
			}
			return table.Flush()
		},
	}
}

func cutNames(cuts []cluster.Cut) string {
	if len(cuts) == 0 {
		return "-"
	}
	var text []string
	for _, cut := range cuts {
		text = append(text, string(cut))
	}
	return strings.Join(text, ",")
}

func kubeconfigCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "kubeconfig", Short: "Print the path of the lab's kubeconfig", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := cluster.Open(*name)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), lab.Kubeconfig())
			return nil
		},
	}
}

func execCommand(name *string) *cobra.Command {
	var stdin bool
	cmd := &cobra.Command{
		Use: "exec NODE|HOST -- COMMAND...", Short: "Run a command on a node or host", Args: usage(cobra.MinimumNArgs(2)),
		Long: "Run a command on a node or host and exit with its code. Nodes are reached by a\n" +
			"serial line, whatever is cut; the command ends when this program does.",
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := cluster.Open(*name)
			if err != nil {
				return err
			}
			streams := wire.Streams{Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr()}
			if stdin {
				streams.Stdin = cmd.InOrStdin()
			}
			code, err := lab.Exec(cmd.Context(), args[0], args[1:], streams)
			if err != nil {
				return err
			}
			if code != 0 {
				return exitError(code)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass stdin to the command")
	return cmd
}

func killCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "kill NODE", Short: "Cut a node's power", Args: usage(cobra.ExactArgs(1)),
		RunE: withLab(name, func(cmd *cobra.Command, lab *cluster.Lab, args []string) error {
			return lab.Kill(cmd.Context(), args[0])
		}),
	}
}

func startCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "start NODE|HOST", Short: "Boot a node that was killed, or start a host's program", Args: usage(cobra.ExactArgs(1)),
		RunE: withLab(name, func(cmd *cobra.Command, lab *cluster.Lab, args []string) error {
			return lab.Start(cmd.Context(), args[0])
		}),
	}
}

func stopCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "stop HOST", Short: "Stop the program of rs1 or rs2", Args: usage(cobra.ExactArgs(1)),
		RunE: withLab(name, func(cmd *cobra.Command, lab *cluster.Lab, args []string) error {
			return lab.Stop(cmd.Context(), args[0])
		}),
	}
}

func cutCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "cut NODE api|peers|gossip|segment|link|all", Short: "Break a node's connections", Args: usage(cobra.ExactArgs(2)),
		Long: "Break a node's connections, outside the node:\n" +
			"  api      with the API server\n" +
			"  peers    with the other nodes, on both networks\n" +
			"  gossip   with the other directors, as far as their gossip goes\n" +
			"  segment  with the segment that has the client and the real servers\n" +
			"  link     the same, by pulling the cable: the node sees it at once\n" +
			"  all      all of them",
		RunE: withLab(name, func(cmd *cobra.Command, lab *cluster.Lab, args []string) error {
			return lab.Cut(cmd.Context(), args[0], cluster.Cut(args[1]))
		}),
	}
}

func healCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "heal NODE", Short: "Mend all of a node's connections", Args: usage(cobra.ExactArgs(1)),
		RunE: withLab(name, func(cmd *cobra.Command, lab *cluster.Lab, args []string) error {
			return lab.Heal(cmd.Context(), args[0])
		}),
	}
}

func loadCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use: "load IMAGE.tar [NODE...]", Short: "Import a container image into nodes", Args: usage(cobra.MinimumNArgs(1)),
		RunE: withLab(name, func(cmd *cobra.Command, lab *cluster.Lab, args []string) error {
			return lab.Load(cmd.Context(), args[0], args[1:]...)
		}),
	}
}

func toolsCommand() *cobra.Command {
	var assets bool
	cmd := &cobra.Command{
		Use: "tools NAME...", Short: "Build tools if they aren't there, and print their paths",
		Long: "Build tools, at the versions that hack/tools pins, if they aren't there, and print\ntheir paths. There are:\n  " +
			strings.Join(toolchain.Names(), " "),
		RunE: func(cmd *cobra.Command, args []string) error {
			if assets == (len(args) > 0) {
				return usageError{fmt.Errorf("name tools, or use --assets alone")}
			}
			for _, tool := range args {
				if !slices.Contains(toolchain.Names(), tool) {
					return usageError{fmt.Errorf("no tool %q: see lab tools --help", tool)}
				}
			}
			tools, err := toolchain.New(os.Stderr)
			if err != nil {
				return err
			}
			if assets {
				dir, err := tools.Assets(cmd.Context())
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), dir)
			}
			for _, tool := range args {
				path, err := tools.Ensure(cmd.Context(), tool)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&assets, "assets", false, "print the folder for KUBEBUILDER_ASSETS")
	return cmd
}

func withLab(name *string, run func(*cobra.Command, *cluster.Lab, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		lab, err := cluster.Open(*name)
		if err != nil {
			return err
		}
		return run(cmd, lab, args)
	}
}
