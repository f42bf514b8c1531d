#!/usr/bin/env bash
# usage: tests/soak/avx512_emulated.sh [OPTION ...] PROGRAM [ARGUMENT ...]
#
# Runs a program, say a test of the kernels, on an emulated processor with AVX-512, for machines that
# have none: a small Linux in the emulator Bochs, with the program, the libraries that ldd names, and
# nothing else. Its output and its exit status are those of the program.
#
#     tests/soak/avx512_emulated.sh build/release/test_kernels --gtest_filter='*Lanes*:*Image*'
#
# Three tests of test_kernels fail by a fault of Bochs 2.7, whose VCVTUDQ2PS drops the last bit of numbers
# from 2^31 on before it rounds (0x9556f681 becomes 0x9556f600, not 0x9556f700):
# ChaChaGaussian.EveryInstructionSetAndTheOneLaneFormGiveTheSameBits, .SplittingTheRangeChangesNoBit and
# .AddingIsTheSumOfBoth.
#
# One core, some hundreds of times slower than this machine's: half a minute until the program starts.
# Times that the program prints mean nothing. Needs Debian (12 or later, amd64): the packages of the
# emulator and of the guest are downloaded and unpacked into the work folder once, none is installed.
#   --cpu MODEL      the processor, a name of Bochs; default corei7_skylake_x. None of Bochs 2.7 has
#                    bfloat16 (avx512_bf16) or tiles (AMX).
#   --with PATH      a file, a folder or another program that it needs, at the same path in the guest;
#                    repeatable
#   --memory MB      of the guest, default 1024; its files lie in it too
#   --limit SECONDS  until the emulator is stopped, default 7200; the status is 124 then
#   --work FOLDER    default build/avx512-emulated; the guest's console is in its serial.log
# Statuses besides the program's: 2 for what the caller must change, 1 where the emulator failed.
set -euo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/../../scripts/common.sh"

cpu=corei7_skylake_x
memory_mb=1024
limit_s=7200
work=$root/build/avx512-emulated
with=()
while (($# > 0)); do
  case $1 in
    -h | --help) show_help; exit 0 ;;
    --cpu | --with | --memory | --limit | --work)
      (($# > 1)) || die 2 "$1 needs a value; see tests/soak/avx512_emulated.sh --help"
      case $1 in
        --cpu) cpu=$2 ;;
        --with) with+=("$(realpath -e -- "$2")") || die 2 "--with: no '$2'" ;;
        --memory) memory_mb=$2 ;;
        --limit) limit_s=$2 ;;
        --work) work=$(realpath -m -- "$2") ;;
      esac
      shift 2
      ;;
    --) shift; break ;;
    -*) die 2 "unknown option '$1'; see tests/soak/avx512_emulated.sh --help" ;;
    *) break ;;
  esac
done
(($# > 0)) || die 2 'no program; see tests/soak/avx512_emulated.sh --help'
[[ $memory_mb =~ ^[1-9][0-9]{1,4}$ ]] || die 2 "--memory is '$memory_mb', not a number of megabytes"
[[ $limit_s =~ ^[1-9][0-9]{0,5}$ ]] || die 2 "--limit is '$limit_s', not a number of seconds"
[[ $(uname -m) == x86_64 ]] || die 2 'the guest has the libraries of this machine, which must be x86-64'
program=$(realpath -e -- "$1") || die 2 "no program '$1'"
[[ -f $program && -x $program ]] || die 2 "'$1' is no program"
shift
[[ $work =~ ^[A-Za-z0-9._/+-]+$ ]] ||
  die 2 "the settings of Bochs cannot name '$work'; choose a --work of letters, digits and ._/+-"
for tool in apt-get apt-cache dpkg-deb flock ldd; do
  command -v "$tool" >/dev/null || die 2 "no $tool; this script needs Debian 12 or later"
done

packages=$work/packages
system=$work/system
serial=$work/serial.log
log=$work/bochs.log
folders=$system/usr/lib/x86_64-linux-gnu
export BXSHARE=$system/usr/share/bochs LTDL_LIBRARY_PATH=$folders/bochs/plugins
# For the downloaded programs alone: what this machine lacks of their libraries.
unpacked_libraries=$folders:$system/lib/x86_64-linux-gnu

# What this machine lacks of the emulator's packages and their dependencies, and the guest's kernel.
download_packages() {
  local wanted=(bochs bochs-term bochsbios vgabios genisoimage isolinux syslinux-common busybox-static)
  local kernel missing sandbox=()
  if ((EUID == 0)); then sandbox=(-o APT::Sandbox::User=root); fi
  kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p')
  [[ -n $kernel ]] ||
    die 2 'apt knows no linux-image-cloud-amd64: this script needs Debian; try apt-get update first'
  missing=$(apt-get --simulate --no-install-recommends install "${wanted[@]}" 2>&1) ||
    die 2 "apt does not find the packages; try apt-get update first: $missing"
  mapfile -t missing < <(sed -n 's/^Inst \([^ ]*\).*/\1/p' <<<"$missing")
  say "downloading the emulator and a kernel into $packages; nothing is installed"
  rm -rf -- "$packages" "$system"
  mkdir -p -- "$packages" "$system"
  mapfile -t missing < <(printf '%s\n' "${wanted[@]}" "${missing[@]}" "$kernel" | sort -u)
  (cd -- "$packages" && apt-get "${sandbox[@]}" --quiet=2 download "${missing[@]}") ||
    die 2 'apt could not download the packages; see above'
  for package in "$packages"/*.deb; do dpkg-deb --extract "$package" "$system"; done
  touch -- "$work/.complete"
}

# The guest's files: the program and what it needs at the same paths as here, BusyBox, and init.
make_guest() {
  local guest=$1 part file linked
  local -a libraries
  mkdir -p -- "$guest"/{bin,dev,proc,sys,tmp}
  cp -- "$system/bin/busybox" "$guest/bin/busybox"
  ln -s busybox "$guest/bin/sh"
  for part in "$program" "${with[@]}"; do
    linked=$(ldd "$part" 2>&1) || linked=''  # static, a script, a folder
    if [[ $linked == *'not found'* ]]; then
      die 2 "$part lacks libraries: $(grep -F 'not found' <<<"$linked")"
    fi
    mapfile -t libraries < <(sed -n 's/^[^/]*\(\/[^ ]*\) (0x[0-9a-f]*)$/\1/p' <<<"$linked")
    for file in "$part" "${libraries[@]}"; do
      (cd / && cp -rL --parents -- "${file#/}" "$guest")
    done
  done
  printf '%s\n' '#!/bin/sh' 'cd /tmp' "exec ${*:2}" >"$guest/bin/run-program"
  cat >"$guest/init" <<'INIT'
#!/bin/sh
bin=/bin/busybox
$bin mount -t proc none /proc
$bin mount -t sysfs none /sys
$bin mount -t devtmpfs none /dev
$bin mount -t tmpfs none /tmp
export HOME=/tmp TMPDIR=/tmp PATH=/bin LC_ALL=C TERM=dumb
echo "sfumato-guest: $($bin sed -n 's/^model name[^:]*: //p' /proc/cpuinfo), $($bin uname -r)"
echo "sfumato-flags: $($bin sed -n 's/^flags[^:]*: //p' /proc/cpuinfo)"
echo "sfumato-begin:"
/bin/sh /bin/run-program </dev/null 2>&1
echo "sfumato-status: $?"
# Not off: what the serial port has not sent yet would be lost.
while :; do $bin sleep 1000; done
INIT
  chmod +x "$guest/init" "$guest/bin/run-program"
}

# A disk that isolinux starts the guest from.
make_disk() {
  local guest=$1 disk=$2
  local kernels=("$system"/boot/vmlinuz-*)
  mkdir -p -- "$disk"
  cp -- "${kernels[0]}" "$disk/vmlinuz"
  cp -- "$system/usr/lib/ISOLINUX/isolinux.bin" "$system/usr/lib/syslinux/modules/bios/ldlinux.c32" "$disk"
  (cd -- "$guest" && find . | "$system/bin/busybox" cpio -o -H newc) >"$disk/initrd" 2>/dev/null
  # xsavec, xsaves: Bochs 2.7 says a wrong size of their format, whereupon Linux would do without AVX; of
  # pku it says none at all. The others keep the start short: no hardware besides processor and serial
  # port, no calibration, no workarounds for faults of real processors.
  # shellcheck disable=SC2054  # commas belong to the options
  local options=(console=ttyS0,115200 quiet loglevel=1 clearcpuid=xsavec,xsaves,pku
    acpi=off pci=off noapic nolapic nosmp lpj=400000 tsc=reliable mitigations=off init_on_alloc=0
    apparmor=0 audit=0 random.trust_cpu=on)
  printf '%s\n' 'default linux' 'label linux' '  kernel vmlinuz' "  append initrd=initrd ${options[*]}" \
    >"$disk/isolinux.cfg"
  local megabytes=$(($(stat --format=%s "$disk/initrd") >> 20))
  ((2 * megabytes + 256 <= memory_mb)) ||
    die 2 "the guest's files take $megabytes MB, twice while it starts; give it --memory $((2 * megabytes + 512))"
  LD_LIBRARY_PATH=$unpacked_libraries "$system/usr/bin/genisoimage" -quiet -o "$work/guest.iso" -b isolinux.bin \
    -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table -R "$disk"
}

write_settings() {
  cat >"$work/bochsrc" <<CONFIG
display_library: term
romimage: file=$system/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=$system/usr/share/vgabios/vgabios-stdvga.bin
megs: $memory_mb
cpu: model=$cpu, count=1, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none, time0=utc
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$work/guest.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$serial
log: $log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
plugin_ctrl: speaker=false
CONFIG
  # Debian's has a debugger, which waits for this word.
  echo continue >"$work/debugger"
}

mkdir -p -- "$work"
exec {lock}>"$work/.lock"
flock --nonblock "$lock" || die 2 "another emulator runs in $work; wait for it or choose another --work"
if [[ ! -f $work/.complete ]]; then download_packages; fi
say 'making the guest'
rm -rf -- "$work/guest" "$work/disk"
# Quoted by bash, read by BusyBox, which knows its $'x' too.
make_guest "$work/guest" "${program@Q}" "${@@Q}"
make_disk "$work/guest" "$work/disk"
rm -rf -- "$work/guest" "$work/disk"
write_settings
: >"$serial"

started=$SECONDS
TERM=linux LD_LIBRARY_PATH=$unpacked_libraries "$system/usr/bin/bochs-bin" -q \
  -rc "$work/debugger" -f "$work/bochsrc" </dev/null >"$work/bochs.out" 2>&1 {lock}>&- &
emulator=$!
# It catches what would end it in order.
trap '{ kill -KILL "$emulator" && wait "$emulator"; } 2>/dev/null || true' EXIT
status=''
begun=''
while IFS= read -r line; do
  line=${line%$'\r'}
  case $line in
    sfumato-guest:*) say "${line#*: }, after $((SECONDS - started)) s" ;;
    sfumato-flags:*)
      for flag in avx512f avx512bw avx512cd avx512dq avx512vl; do
        [[ " $line " == *" $flag "* ]] || die 2 "with --cpu $cpu the guest has no $flag; choose another"
      done
      ;;
    sfumato-begin:*) begun=1 ;;
    sfumato-status:*) status=${line#*: }; break ;;
    *'Kernel panic'*) die 1 "the guest broke down; see $serial" ;;
    *) if [[ -n $begun ]]; then printf '%s\n' "$line"; fi ;;
  esac
done < <(timeout "$limit_s" tail --pid="$emulator" -n +1 -f -- "$serial" 2>/dev/null {lock}>&-)
if [[ -z $status ]] && kill -0 "$emulator" 2>/dev/null; then
  say "stopped after $limit_s s (--limit); the guest's console is in $serial"
  exit 124
fi
[[ -n $status ]] || die 1 "the emulator ended before the program did; see $log and $work/bochs.out"
say "status $status after $((SECONDS - started)) s; the guest's console is in $serial"
exit "$status"
