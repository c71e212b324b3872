// type=bridge: a bridge of the kernel with addresses, NAT, DHCP and DNS.
import { rm } from 'node:fs/promises';
import type { Host } from '#src/host/host.ts';
import { Ovs } from '#src/host/ovs.ts';
import { readKernelFile } from '#src/host/kernel-files.ts';
import { AppError } from '#src/lib/errors.ts';
import { interfaceName } from '../common/checks.ts';
import type {
  HostRegistry,
  ManagedNetwork,
  NetworkConfig,
  NetworkContext,
  NetworkDriver,
  NetworkInfo,
  NetworkModule,
} from '../driver.ts';
import { addressOf, isOn, validateBridge } from './config-keys.ts';
import { Dnsmasq } from './dnsmasq.ts';
import { emptyFirewallScript, firewallScript } from './firewall.ts';
import { forwardingTrouble } from './forwarding-policy.ts';
import { bridgeDown, type BridgeParts, bridgeUp } from './links.ts';
import { freeSubnet } from './subnets.ts';

const INFO: NetworkInfo = {
  type: 'bridge',
  nictype: 'bridged',
  nicOptions: ['mtu'],
  isInterface: true,
  forwards: true,
};

const NFT_MS = 20_000;

class BridgeNetwork implements NetworkDriver {
  readonly info = INFO;
  readonly hosts: HostRegistry;
  readonly #context: NetworkContext;
  readonly #dnsmasq: Dnsmasq;

  constructor(context: NetworkContext) {
    this.#context = context;
    this.#dnsmasq = new Dnsmasq(context);
    this.hosts = {
      set: (network, entries, isOurs) => this.#dnsmasq.setHosts(network, entries, isOurs),
      lines: (network) => this.#dnsmasq.lines(network),
      leases: (network) => this.#dnsmasq.leases(network),
      release: (network, gone) => this.#dnsmasq.release(network, gone),
    };
  }

  validate(name: string, config: NetworkConfig): void {
    const complaint = interfaceName(name);
    if (complaint !== undefined) throw new AppError('invalid', complaint);
    validateBridge(name, config);
  }

  async checkNew(name: string, config: NetworkConfig): Promise<void> {
    const { host } = this.#context;
    if (await host.links.find(name)) {
      throw new AppError('internal', `Network interface "${name}" already exists`);
    }
    await this.#checkDriver(host, config);
  }

  async #checkDriver(host: Host, config: NetworkConfig): Promise<void> {
    if (config['bridge.driver'] !== 'openvswitch') return;
    if (await new Ovs(host).isInstalled()) return;
    throw new AppError('internal', "Open vSwitch isn't installed on this system");
  }

  async complete(config: NetworkConfig, { isNew }: { readonly isNew: boolean }, signal: AbortSignal) {
    const { host } = this.#context;
    await this.#checkDriver(host, config);
    const filled: Record<string, string> = isNew ? withDefaults(config) : { ...config };
    for (const family of [4, 6] as const) {
      const key = `ipv${family}.address`;
      if (filled[key] === 'auto') filled[key] = await freeSubnet(host, family, signal);
    }
    return filled;
  }

  async up(network: ManagedNetwork, signal: AbortSignal): Promise<void> {
    const { host } = this.#context;
    const parts = this.#parts(network.name);
    await host.makeDirectory(parts.directory, { mode: 0o711 });
    await bridgeUp(parts, network);
    await this.#dnsmasq.up(network, signal);
    await this.#nft(firewallScript(network), signal);
  }

  async trouble({ name, config }: ManagedNetwork, signal: AbortSignal): Promise<string | undefined> {
    if (addressOf(config, 4) === undefined || !isOn(config, 'ipv4.routing')) return undefined;
    return forwardingTrouble(this.#context.host, name, signal);
  }

  async down(name: string, signal: AbortSignal): Promise<void> {
    await this.#dnsmasq.stop(name, signal);
    await this.#nft(emptyFirewallScript(name), signal);
    await bridgeDown(this.#parts(name), name);
    await rm(this.#parts(name).directory, { recursive: true, force: true });
  }

  #parts(name: string): BridgeParts {
    const { host, log } = this.#context;
    return { host, log, directory: this.#dnsmasq.directory(name) };
  }

  async #nft(script: string, signal: AbortSignal): Promise<void> {
    await this.#context.host.run(['nft', '-f', '-'], { input: script, signal, timeoutMs: NFT_MS });
  }
}

/** An address of either family, and NAT for those that are chosen for it. */
function withDefaults(config: NetworkConfig): Record<string, string> {
  const families = ipv6IsOn() ? ['ipv4', 'ipv6'] : ['ipv4'];
  const filled = { ...Object.fromEntries(families.map((family) => [`${family}.address`, 'auto'])), ...config };
  const automatic = families.filter((family) => filled[`${family}.address`] === 'auto');
  return { ...Object.fromEntries(automatic.map((family) => [`${family}.nat`, 'true'])), ...filled };
}

function ipv6IsOn(): boolean {
  return readKernelFile('/proc/sys/net/ipv6/conf/default/disable_ipv6')?.trim() === '0';
}

export const bridge: NetworkModule = { type: 'bridge', create: (context) => new BridgeNetwork(context) };
