# shellcheck shell=bash
# Runs a trainer inside a SLURM batch job: torchrun on every node, saving before the time limit, requeueing.
# Sourced by the sbatch files, whose working directory is the root of the repository.
#
# torchrun turns every exit code into 1, so the trainer says how it ended by a file in its run folder:
# FINISHED, or REQUEUE if it saved after SIGUSR1 or SIGTERM; the same command resumes it.

# How long torchrun waits for its workers to save before it kills them, and srun for the other nodes' torchrun;
# less than the seconds of the sbatch file's `--signal`.
: "${SAVE_SECONDS:?is not set: an sbatch file sets it before it sources slurm.sh}"

fail() {
    echo "error: $*" >&2
    exit 2
}

# processes_per_node: one per GPU of a node, or as many as NPROC_PER_NODE says.
processes_per_node() {
    local processes=${NPROC_PER_NODE:-${SLURM_GPUS_ON_NODE:-}}
    if [[ ! $processes =~ ^[1-9][0-9]*$ ]]; then
        fail "the number of processes per node is unknown: NPROC_PER_NODE is '${NPROC_PER_NODE:-}' and" \
            "SLURM_GPUS_ON_NODE is '${SLURM_GPUS_ON_NODE:-}'. Ask for GPUs (sbatch --gpus-per-node=8 ...) or, to" \
            "train without them, say how many processes to start: NPROC_PER_NODE=2 sbatch --gpus-per-node=0 ..."
    fi
    echo "$processes"
}

# rendezvous_endpoint: first node of the job, and a port from the job's number, so that jobs on one node keep
# apart; Linux hands out ports from 32768 on.
rendezvous_endpoint() {
    local hosts
    hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST") ||
        fail "scontrol could not expand the list of nodes '$SLURM_JOB_NODELIST'"
    echo "${hosts%%$'\n'*}:$((15000 + SLURM_JOB_ID % 15000))"
}

# split_overrides CONFIG [KEY=VALUE ...]: sets `folder`, the run folder with the markers, and `overrides`, all but
# output=.
split_overrides() {
    local name override
    name=$(basename "$1")
    folder=runs/${name%.*}
    overrides=()
    for override in "${@:2}"; do
        if [[ $override == output=* ]]; then folder=${override#output=}; else overrides+=("$override"); fi
    done
}

# launch ENDPOINT PROCESSES TRAINER ARGUMENT...: starts the job step in the background, sets `srun_pid`.
launch() {
    local step=("--nodes=$SLURM_NNODES" "--ntasks=$SLURM_NNODES" --ntasks-per-node=1)
    # srun no longer takes this one from the job by itself (SLURM 22.05 and later).
    if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then step+=("--cpus-per-task=$SLURM_CPUS_PER_TASK"); fi
    # After a signal every torchrun exits with 1; the first one must not take down a node that still saves.
    # A node whose peers died is ended by --wait.
    step+=(--kill-on-bad-exit=0 "--wait=$SAVE_SECONDS")

    local torchrun=("--nnodes=$SLURM_NNODES" "--nproc-per-node=$2" "--rdzv-id=$SLURM_JOB_ID")
    torchrun+=(--rdzv-backend=c10d "--rdzv-endpoint=$1" --max-restarts=0)
    # Without SIGUSR1 in this list the signal kills torchrun, and its workers end without saving.
    torchrun+=("--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1" "--shutdown-timeout=$SAVE_SECONDS")

    echo "starting $2 processes on each of $SLURM_NNODES nodes, rendezvous at $1: ${*:3}"
    srun "${step[@]}" bash scripts/slurm_node.sh "${torchrun[@]}" "${@:3}" &
    srun_pid=$!
}

# Before the time limit only this shell gets the signal, and srun hands it on. Once: torchrun gives up its orderly
# shutdown at a second one.
forward_warning() {
    interrupted=yes
    if [[ -n $srun_pid && $warned == no ]]; then
        warned=yes
        echo "SIGUSR1: asking the trainer to save and stop (torchrun reports the signal as an exception)"
        # srun may have ended a moment ago; then there is nothing to hand on.
        kill -USR1 "$srun_pid" 2>/dev/null || echo "the job step has already ended"
    fi
}

# Cancelled, preempted or at the time limit: SLURM signals all processes of the job itself.
note_termination() {
    interrupted=yes
    terminated=yes
}

# wait_for_step: sets `status` to srun's exit code. A trapped signal ends bash's `wait` early, so it is repeated.
wait_for_step() {
    interrupted=yes
    while [[ $interrupted == yes ]]; do
        interrupted=no
        status=0
        wait "$srun_pid" || status=$?
    done
}

# conclude FOLDER: requeues the job or ends this script with the step's exit code.
conclude() {
    if [[ -e $1/FINISHED || ! -e $1/REQUEUE ]]; then
        echo "job step ended with exit code $status; $1/FINISHED $([[ -e $1/FINISHED ]] && echo exists || echo is missing)"
        exit "$status"
    fi
    if [[ $terminated == yes ]]; then
        # A cancelled job must stay cancelled; a preempted one is requeued by SLURM.
        echo "saved in $1 and ended by SLURM; to go on, submit the same command again"
        exit 143
    fi
    echo "saved in $1; requeueing job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID" || fail "job $SLURM_JOB_ID could not be requeued: submit the same command again"
    exit 0
}

# train_under_slurm TRAINER CONFIG [KEY=VALUE ...]
train_under_slurm() {
    local trainer=$1 config=${2:-}
    [[ -f $config ]] || fail "'$config' is no configuration file; usage: sbatch [...] FILE.sbatch CONFIG [KEY=VALUE ...]"
    local name
    for name in SLURM_JOB_ID SLURM_NNODES SLURM_JOB_NODELIST; do
        [[ -n ${!name:-} ]] || fail "$name is not set: submit this script with sbatch"
    done
    # The active environment counts; without one, the environment `make` has built.
    command -v torchrun >/dev/null || export PATH=$PWD/.venv/bin:$PATH
    command -v torchrun >/dev/null || fail "torchrun not found: run 'make install' or activate an environment"

    local processes endpoint folder overrides
    processes=$(processes_per_node)
    endpoint=$(rendezvous_endpoint)
    split_overrides "${@:2}"
    # A marker of an earlier start would requeue a job that crashes now, for ever.
    rm -f "$folder/REQUEUE"

    srun_pid='' interrupted=no warned=no terminated=no status=0
    trap forward_warning USR1
    trap note_termination TERM
    export PYTHONUNBUFFERED=1 # the log shows progress as it happens
    launch "$endpoint" "$processes" "$trainer" --config "$config" "output=$folder" "${overrides[@]}"
    wait_for_step
    conclude "$folder"
}
