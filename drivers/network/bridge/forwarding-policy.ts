// Other programs' firewalls that keep traffic from passing the host: Docker sets the policy of FORWARD to drop, whatever our own rules say.
import type { Host } from '#src/host/host.ts';

const NFT_MS = 10_000;

interface Rule {
  readonly chain: string;
  readonly text: string;
}

/** Words for a warning; undefined: nothing of the kind. Only what nft(8) shows is seen. */
export async function forwardingTrouble(host: Host, bridge: string, signal: AbortSignal): Promise<string | undefined> {
  const { stdout, exitCode } = await host.run(['nft', '-j', 'list', 'table', 'ip', 'filter'], {
    signal,
    timeoutMs: NFT_MS,
    okExitCodes: [0, 1],
  });
  return exitCode === 0 && dropsForwarding(stdout, bridge) ? troubleText(bridge) : undefined;
}

/** Whether the table, as nft -j prints it, drops what is forwarded and has no rule that names the bridge. */
export function dropsForwarding(json: string, bridge: string): boolean {
  const { nftables = [] } = JSON.parse(json) as { readonly nftables?: readonly Record<string, unknown>[] };
  const chains = nftables.flatMap(({ chain }) => (chain === undefined ? [] : [chain as Record<string, unknown>]));
  const drops = chains.some(({ hook, policy }) => hook === 'forward' && policy === 'drop');
  const rules = nftables.flatMap(({ rule }) => (rule === undefined ? [] : [ruleOf(rule as Record<string, unknown>)]));
  const isLetThrough = rules.some(
    ({ chain, text }) => ['FORWARD', 'DOCKER-USER'].includes(chain) && text.includes(`"${bridge}"`),
  );
  return drops && !isLetThrough;
}

function ruleOf({ chain, expr }: Record<string, unknown>): Rule {
  return { chain: String(chain), text: JSON.stringify(expr) };
}

function troubleText(bridge: string): string {
  const rules = ['-i', '-o'].map((way) => `iptables -I DOCKER-USER ${way} ${bridge} -j ACCEPT`).join('; ');
  return `The host's firewall (usually Docker's) drops forwarded traffic; let it through with: ${rules}`;
}
