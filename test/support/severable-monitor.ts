import net from "node:net";

/** A QMP socket in front of QEMU's own whose connections a test can cut, as if a monitor died while its QEMU lives. */
export class SeverableMonitor {
  readonly path: string;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();

  private constructor(path: string, server: net.Server) {
    this.path = path;
    this.#server = server;
  }

  static async before(monitorPath: string, path: string): Promise<SeverableMonitor> {
    const server = net.createServer();
    const monitor = new SeverableMonitor(path, server);
    server.on("connection", (near) => monitor.#join(near, net.connect(monitorPath)));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return monitor;
  }

  #join(near: net.Socket, far: net.Socket): void {
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => other.destroy());
      socket.pipe(other);
    }
  }

  /** Cuts what is connected; whoever connects anew gets through. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
